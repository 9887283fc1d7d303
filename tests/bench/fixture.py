"""What a mailbox costs a test: a fresh one, one mail, the wait for it, and all of it put away again."""

from __future__ import annotations

import json
import statistics

from tests.bench.measuring import Figures, Ratio, Row
from tests.bench.suites import ONE_MAIL, run_suite

TITLE = "the fixtures' overhead"

TESTS = 100

# The two kinds of test take turns; the first pair and the last, with which the lab comes and goes, are not counted.
SUITE = (
    ONE_MAIL
    + f"""
import time, pytest

@pytest.mark.parametrize("number", range({TESTS} + 2))
class TestPairs:
    def test_nothing(self, number):
        pass

    def test_mail(self, number, mailbox, smtp_settings, record_property):
        begun = time.perf_counter()
        send(smtp_settings, mailbox.address, f"number {{number}}.")
        sent = time.perf_counter()
        mailbox.wait_for_message(subject=f"number {{number}}.")
        record_property("parts", {{"send": sent - begun, "wait": time.perf_counter() - sent}})
"""
)

CONFTEST = """
import json, pathlib, time, pytest

TAKEN = []

def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.callspec.params["number"])  # a stable sort: nothing, mail, nothing, mail, …

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    item.taken = {}
    begun = time.perf_counter()
    result = yield
    taken = {"whole": time.perf_counter() - begun, **item.taken, **dict(item.user_properties).get("parts", {})}
    TAKEN.append((item.originalname, taken))
    return result

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    item.taken[call.when] = call.duration
    return (yield)

def pytest_sessionfinish():
    pathlib.Path("taken.json").write_text(json.dumps(TAKEN))
"""


def measure(runs: int) -> Figures:
    """One run of pytest with both kinds of test in turn; `runs` is not asked, since there are many tests."""
    left = run_suite(SUITE, conftest=CONFTEST).left
    taken: dict[str, dict[str, list[float]]] = {}
    for name, parts in json.loads(left["taken.json"])[2:-2]:
        for part, seconds in parts.items():
            taken.setdefault(name, {}).setdefault(part, []).append(1000 * seconds)
    mail, nothing = taken["test_mail"], taken["test_nothing"]
    overhead = statistics.median(mail["whole"]) - statistics.median(nothing["whole"])
    return Figures(
        (
            Row("a test with a mailbox and a mail, as a whole", tuple(mail["whole"]), "ms"),
            Row("  setup: a fresh mailbox", tuple(mail["setup"]), "ms"),
            Row("  call: connect, TLS, AUTH, one mail, QUIT", tuple(mail["send"]), "ms"),
            Row("  call: wait_for_message", tuple(mail["wait"]), "ms"),
            Row("  teardown", tuple(mail["teardown"]), "ms"),
            Row("an empty test in the same run, as a whole", tuple(nothing["whole"]), "ms"),
        ),
        (Ratio("overhead, median, ms a test", overhead, bar=40),),
        (f"{TESTS} tests of each kind, in turn, in one run of pytest and one lab, without workers.",),
    )
