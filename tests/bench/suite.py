"""A suite of plugin tests with four workers, against the work that there is divided by the cores."""

from __future__ import annotations

import os
import statistics

from tests.bench.measuring import Figures, Ratio, Row, alternate
from tests.bench.suites import ONE_MAIL, run_suite

TITLE = "a suite of 200 plugin tests with -n 4"

TESTS = 200
WORKERS = "4"

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


def measure(runs: int) -> Figures:
    """The suite and the parts of its ideal, in alternation."""
    sides = {
        "suite": (SUITE, WORKERS),
        "fixed": (NOTHING, WORKERS),
        "serial": (SUITE, ""),
        "serial fixed": (NOTHING, ""),
    }
    processor: dict[str, list[float]] = {side: [] for side in sides}

    def ran(side: str) -> float:
        source, workers = sides[side]
        found = run_suite(source, *(("-n", workers) if workers else ()))
        processor[side].append(found.processor)
        return found.seconds

    seconds = alternate({side: lambda each=side: ran(each) for side in sides}, runs)
    counted = {side: each[-runs:] for side, each in processor.items()}  # the first round is not
    cores = min(os.cpu_count() or 1, int(WORKERS))
    work = [all_ - fixed for all_, fixed in zip(counted["serial"], counted["serial fixed"], strict=True)]
    elapsed = [all_ - fixed for all_, fixed in zip(seconds["serial"], seconds["serial fixed"], strict=True)]

    def ideal(parts: list[float]) -> tuple[float, ...]:
        return tuple(fixed + part / cores for fixed, part in zip(seconds["fixed"], parts, strict=True))

    def ratio(ideals: tuple[float, ...]) -> float:
        return statistics.median(taken / each for taken, each in zip(seconds["suite"], ideals, strict=True))

    return Figures(
        (
            Row(f"{TESTS} tests, -n {WORKERS}, as a whole process", seconds["suite"]),
            Row("the ideal", ideal(work)),
            Row("stricter: as if the servers had waited for the tests", ideal(elapsed)),
            Row(f"fixed, -n {WORKERS}: pytest, xdist, up, down", seconds["fixed"]),
            Row(f"{TESTS} tests without workers", seconds["serial"]),
            Row("fixed without workers: pytest, up, down", seconds["serial fixed"]),
            Row("processor time of the tests, without workers", tuple(work)),
        ),
        (
            Ratio("suite ÷ ideal, round by round", ratio(ideal(work)), bar=1.2),
            Ratio("suite ÷ the stricter one", ratio(ideal(elapsed))),
        ),
        (
            "Each test: a fresh mailbox, one mail over a session of its own, a wait by the subject.",
            (
                f"The ideal: the fixed costs with workers + work ÷ {cores} cores. Work is the processor time that the "
                "tests, their mails and the servers take without workers, where they hinder each other least: this "
                "machine's, less that of the fixed costs. The stricter one takes the time on the clock, as if the "
                "servers, which have the second processor meanwhile, took none."
            ),
        ),
    )
