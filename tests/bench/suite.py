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
    workers = ("-n", WORKERS)
    seconds = alternate(
        {
            "suite": lambda: run_suite(SUITE, *workers).seconds,
            "fixed": lambda: run_suite(NOTHING, *workers).seconds,
            "serial": lambda: run_suite(SUITE).seconds,
            "serial fixed": lambda: run_suite(NOTHING).seconds,
        },
        runs,
    )
    cores = min(os.cpu_count() or 1, int(WORKERS))
    ideal = tuple(
        fixed + (serial - serial_fixed) / cores
        for fixed, serial, serial_fixed in zip(
            seconds["fixed"], seconds["serial"], seconds["serial fixed"], strict=True
        )
    )
    ratios = [taken / each for taken, each in zip(seconds["suite"], ideal, strict=True)]
    return Figures(
        (
            Row(f"{TESTS} tests, -n {WORKERS}, as a whole process", seconds["suite"]),
            Row("the ideal", ideal),
            Row(f"fixed, -n {WORKERS}: pytest, xdist, up, down", seconds["fixed"]),
            Row(f"{TESTS} tests without workers", seconds["serial"]),
            Row("fixed without workers: pytest, up, down", seconds["serial fixed"]),
        ),
        (Ratio("suite ÷ ideal, round by round", statistics.median(ratios), bar=1.2),),
        (
            "Each test: a fresh mailbox, one mail over a session of its own, a wait by the subject.",
            f"The ideal: the fixed costs with workers + (without workers − the fixed costs of that) ÷ {cores} cores.",
        ),
    )
