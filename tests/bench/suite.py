"""A suite of plugin tests with four workers, against half of what its tests take one after the other.

Each of its runs is evidence as well: whether it passed, whether its workers had one lab, whether it left anything.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
from dataclasses import dataclass

from mailstack.lab import homes
from mailstack.state import owner
from tests import engines
from tests.bench.measuring import Figures, Ratio, Row, alternate
from tests.bench.suites import ONE_MAIL, Ran, run_suite

TITLE = "a suite of 200 plugin tests with -n 4"

TESTS = 200
WORKERS = 4

SUITE = (
    ONE_MAIL
    + f"""
import pytest

@pytest.mark.parametrize("number", range({TESTS}))
def test_mail(number, mailbox, smtp_settings):
    send(smtp_settings, mailbox.address, f"number {{number}}.")
    assert mailbox.wait_for_message(subject=f"number {{number}}.").to == [mailbox.address]
"""
)

# The fixed costs: pytest and its workers come up and go, with a lab that each of them asks for.
NOTHING = f"""
import pytest

@pytest.mark.parametrize("number", range({WORKERS}))
def test_nothing(number, mailstack_lab):
    pass
"""

# Each worker leaves word of the lab that it had.
CONFTEST = """
import json, os, pathlib, pytest

@pytest.fixture(scope="session", autouse=True)
def told(mailstack_lab):
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    pathlib.Path(f"{worker}.json").write_text(json.dumps(mailstack_lab.name))
"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run with workers shows besides its time."""

    failed: str  # what pytest said, where a test failed
    labs: tuple[str, ...]  # that its workers had, worker by worker
    left: tuple[str, ...]  # things that carry the label of one of these labs, and files, when it had ended

    @property
    def shared(self) -> bool:
        """Whether all workers had one lab."""
        return len(self.labs) == WORKERS and len(set(self.labs)) == 1

    @property
    def good(self) -> bool:
        """Whether it passed, with one lab, and left nothing."""
        return not self.failed and self.shared and not self.left

    def __str__(self) -> str:
        return f"labs: {', '.join(self.labs)}; left: {', '.join(self.left) or 'nothing'}\n{self.failed}".rstrip()


def measure(runs: int) -> Figures:
    """The suite and the parts of its ideal, in alternation."""
    with_workers = ("-n", str(WORKERS))
    sides = {
        "suite": (SUITE, with_workers),
        "fixed": (NOTHING, with_workers),
        "serial": (SUITE, ()),
        "serial fixed": (NOTHING, ()),
    }
    processor: dict[str, list[float]] = {side: [] for side in sides}
    shown: list[Evidence] = []

    def ran(side: str) -> float:
        source, options = sides[side]
        found = run_suite(source, *options, conftest=CONFTEST, may_fail=side == "suite")
        processor[side].append(found.processor)
        if side == "suite":
            shown.append(_evidence(found))
            if not shown[-1].good:
                print(f"run {len(shown)} of the suite was no good: {shown[-1]}", file=sys.stderr, flush=True)
        return found.seconds

    seconds = alternate({side: functools.partial(ran, side) for side in sides}, runs)
    counted = {side: tuple(each[-runs:]) for side, each in processor.items()}  # the first round is not
    return figures(seconds, counted, shown)


def _evidence(found: Ran) -> Evidence:
    labs = tuple(json.loads(text) for _, text in sorted(found.left.items()))
    engine = engines.here()
    left = [str(thing) for lab in set(labs) for thing in engine.leftovers(lab, owner())]
    left += [path.name for lab in set(labs) for path in homes.current(engines.here()).path.glob(f"{lab}*")]
    return Evidence(found.failed, labs, tuple(left))


def figures(
    seconds: dict[str, tuple[float, ...]], processor: dict[str, tuple[float, ...]], shown: list[Evidence]
) -> Figures:
    """What was found: times on the clock and of the processors, side by side, and what the runs show besides."""
    cores = min(os.cpu_count() or 1, WORKERS)

    def work(values: dict[str, tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(every - fixed for every, fixed in zip(values["serial"], values["serial fixed"], strict=True))

    def ideal(parts: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(fixed + part / cores for fixed, part in zip(seconds["fixed"], parts, strict=True))

    def ratio(ideals: tuple[float, ...]) -> float:
        return statistics.median(taken / each for taken, each in zip(seconds["suite"], ideals, strict=True))

    strict, loose = ideal(work(seconds)), ideal(work(processor))
    runs = len(shown)

    def all_of(title: str, count: int) -> Ratio:
        return Ratio(f"{title}, of {runs}", count, bar=runs, at_most=False)

    return Figures(
        (
            Row(f"{TESTS} tests, -n {WORKERS}, as a whole process", seconds["suite"]),
            Row("the ideal", strict),
            Row("by processor time", loose),
            Row(f"fixed, -n {WORKERS}: pytest, xdist, up, down", seconds["fixed"]),
            Row(f"{TESTS} tests without workers", seconds["serial"]),
            Row("fixed without workers: pytest, up, down", seconds["serial fixed"]),
            Row("processor time of the tests, without workers", work(processor)),
        ),
        (
            Ratio("suite ÷ ideal, round by round", ratio(strict), bar=1.2),
            Ratio("suite ÷ what it is by processor time", ratio(loose)),
            all_of("runs that passed", sum(not each.failed for each in shown)),
            all_of("runs whose workers had one lab", sum(each.shared for each in shown)),
            all_of("runs that left nothing", sum(not each.left for each in shown)),
        ),
        (
            "Each test: a fresh mailbox, one mail over a session of its own, a wait by the subject.",
            (
                "The ideal: the fixed costs with workers + (without workers − the fixed costs of that) ÷ "
                f"{cores} cores. It takes the tests for work of one core alone."
            ),
            (
                "By processor time: the same with the time that the processors are busy, which counts what the servers "
                "do beside a test. It tells how much of the rest is work that more workers cannot share out."
            ),
            "The runs are those with workers, the first one, which is not counted, among them.",
        ),
    )
