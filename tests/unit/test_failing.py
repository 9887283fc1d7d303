"""What failed in an experiment is told once for each cause, with the numbers of the rows, and each remedy once."""

from __future__ import annotations

import pytest

from mailstack.cli import experiment
from mailstack.model import Json
from mailstack.report.failing import failures, spans

REMEDY = "sudo postmap hash:/etc/postfix/sasl_passwd; sudo postfix reload"


def step(id: str, reason: str = "", blocked_by: str | None = None) -> Json:
    """Return a step; it failed if there is a reason."""
    words = {"title": f"title of {id}", "row": f"The student does {id}."}
    return {"id": id, **words, "verdict": "fail" if reason else "pass", "reason": reason, "blocked_by": blocked_by}


STEPS = [
    step("lab"),
    step("mailname", "it needs “title of credentials”, which failed: no map", "credentials"),
    step("credentials", f"no map\n→ {REMEDY}"),
    step("send", "it needs “title of credentials”, which failed: no map", "credentials"),
    step("key", "no key"),
    step("certificate", "no key"),
    step("maps", f"not hashed\n→ {REMEDY}"),
]


def test_rows_that_fail_for_one_cause_are_told_together_by_their_numbers() -> None:
    found = failures(STEPS)
    assert [(each.number, each.reason) for each in found] == [
        (3, f"no map\n→ {REMEDY}"),
        (5, "no key"),
        (7, f"not hashed\n→ {REMEDY}"),
    ]
    assert [[number for number, _ in each.same] for each in found] == [[2, 4], [6], []]
    assert failures([step("lab")]) == []


def test_numbers_in_a_row_are_told_as_a_span() -> None:
    assert spans([2, 4, 5, 7, 8, 9, 10, 12]) == "2, 4, 5, 7–10, 12"
    assert spans([]) == ""


def test_a_document_of_an_earlier_version_has_no_cause_but_the_same_reason() -> None:
    steps = [
        {"id": id, "verdict": v, "reason": r}
        for id, v, r in [("1", "fail", "a"), ("2", "pass", ""), ("3", "fail", "a")]
    ]
    (found,) = failures(steps)
    assert (found.number, found.same) == (1, [(3, steps[2])])


def test_a_terminal_shows_each_remedy_once_and_rows_by_number_and_title(capsys: pytest.CaptureFixture[str]) -> None:
    experiment._print_failures(STEPS)
    shown = capsys.readouterr().out
    assert shown.count("sudo postmap") == 1
    for line in (
        "row 3 failed: title of credentials",
        "  The student does credentials.",
        "  no map",
        "  rows 2, 4 fail for the same cause as row 3",
        "  row 6 fails for the same cause as row 5",
        "    → the same as for row 3",
    ):
        assert line in shown.splitlines()
    assert "it needs" not in shown
