"""Selection, verdicts, order and reports of checks. The checks themselves are tested in tests/docker."""

from __future__ import annotations

import smtplib
import threading
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from mailstack import checks
from mailstack.checks import Check, Concurrency
from mailstack.checks.judging import NotApplicable, Unmet, expect
from mailstack.errors import CheckFailed, InputError
from mailstack.model import CheckResult, Verdict
from mailstack.report import results as report
from tests.unit.fakes import FakeTarget


class Bench:
    """The parts of a bench that `judge` needs."""

    lab = SimpleNamespace(target=FakeTarget())

    def blot(self, text: str) -> str:
        return text.replace("hunter2", "••••••")


BENCH: Any = Bench()


def check(function: Any, name: str = "a.b", concurrency: Concurrency = Concurrency.PARALLEL) -> Check:
    return Check(name, "a title", "RFC 1", function, concurrency)


def raising(error: Exception) -> Any:
    def function(bench: object) -> str:
        raise error

    return function


def test_there_are_more_than_forty_checks_each_with_a_source_and_an_id_of_its_own() -> None:
    every = checks.all_checks()
    assert len(every) >= 40
    assert len({each.id for each in every}) == len(every)
    assert all(each.title and each.source and len(each.title) <= 90 for each in every)


def test_every_family_of_the_issue_is_there() -> None:
    families = {each.id.partition(".")[0] for each in checks.all_checks()}
    assert families == {"auth", "tls", "delivery", "smuggling", "relay", "queue", "closed", "exposure"}


def test_checks_are_chosen_by_id_and_by_family() -> None:
    assert [each.id for each in checks.select(["queue"])] == ["queue.dovecot-stopped"]
    assert [each.id for each in checks.select(["auth.plain-587"])] == ["auth.plain-587"]


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown check 'auth\.nonsense'"):
        checks.select(["auth.nonsense"])


@pytest.mark.parametrize(
    ("function", "verdict", "evidence"),
    [
        (lambda bench: "250 ok", Verdict.PASS, "250 ok"),
        (raising(Unmet("421 no")), Verdict.FAIL, "421 no"),
        (raising(NotApplicable("no alias")), Verdict.SKIP, "no alias"),
        (raising(CheckFailed("refused")), Verdict.FAIL, "refused"),
        (raising(ConnectionResetError("gone")), Verdict.FAIL, "ConnectionResetError: gone"),
        (raising(smtplib.SMTPServerDisconnected("closed")), Verdict.FAIL, "SMTPServerDisconnected: closed"),
        (lambda bench: "the password is hunter2", Verdict.PASS, "the password is ••••••"),
    ],
)
def test_whatever_happens_becomes_a_verdict_with_evidence(function: Any, verdict: Verdict, evidence: str) -> None:
    result = checks.judge(check(function), BENCH)
    assert (result.verdict, result.evidence) == (verdict, evidence)


def test_a_mistake_in_a_check_is_not_taken_for_a_broken_promise() -> None:
    with pytest.raises(ZeroDivisionError):
        checks.judge(check(lambda bench: str(1 // 0)), BENCH)


def test_expect_raises_with_the_evidence() -> None:
    assert expect(True, "evidence") == "evidence"
    with pytest.raises(Unmet, match="evidence"):
        expect(False, "evidence")


def test_checks_run_side_by_side_in_turn_and_alone_and_come_back_in_order() -> None:
    both = threading.Barrier(2, timeout=10)
    events: list[str] = []

    def beside(bench: object) -> str:
        both.wait()  # passes only when two run at once
        events.append("beside")
        return ""

    def noted(name: str) -> Any:
        def function(bench: object) -> str:
            events.append(name)
            return ""

        return function

    wanted = [
        check(noted("alone"), "q.1", Concurrency.EXCLUSIVE),
        check(noted("first"), "s.1", Concurrency.SENDER),
        check(noted("second"), "s.2", Concurrency.SENDER),
        check(beside, "b.1"),
        check(beside, "b.2"),
    ]
    results = checks.run(BENCH, wanted, lambda result: None)
    assert [result.id for result in results] == ["q.1", "s.1", "s.2", "b.1", "b.2"]
    assert events[-1] == "alone" and events.index("first") < events.index("second")


RESULTS = [
    CheckResult("auth.a", "first", "RFC 1", Verdict.PASS, "235", 1.0),
    CheckResult("auth.b", "second", "RFC 2", Verdict.FAIL, "250 \x00<&>", 2.0),
    CheckResult("tls.c", "third", "RFC 3", Verdict.SKIP, "no TLS", 3.0),
]


def test_the_json_has_the_shape_of_the_documentation() -> None:
    document = report.as_json("lab", RESULTS)
    assert set(document) == {"lab", "checks", "passed", "failed", "skipped"}
    assert set(document["checks"][0]) == {"id", "title", "source", "verdict", "evidence", "milliseconds"}
    assert (document["passed"], document["failed"], document["skipped"]) == (1, 1, 1)
    assert [each["verdict"] for each in document["checks"]] == ["pass", "fail", "skip"]


def test_the_junit_file_is_well_formed_and_counts() -> None:
    suite = ElementTree.fromstring(report.as_junit("lab", RESULTS, 0.5))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    assert [case.get("name") for case in suite] == ["a", "b", "c"]
    failure = suite.find("testcase/failure")
    assert failure is not None and "250 ?<&>" in str(failure.text)
