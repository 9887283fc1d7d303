"""The results that the benchmark of a suite computes from its runs."""

from __future__ import annotations

import os

import pytest

from tests.bench import suite
from tests.bench.suite import Evidence

GOOD = Evidence("", ("pytest-a",) * 4, ())
SECONDS: dict[str, tuple[float, ...]] = {"suite": (12.0,), "fixed": (4.0,), "serial": (19.0,), "serial fixed": (3.0,)}
PROCESSOR: dict[str, tuple[float, ...]] = {"suite": (0.0,), "fixed": (0.0,), "serial": (25.0,), "serial fixed": (3.0,)}


def test_the_bar_is_on_half_of_what_the_tests_take_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    strict, loose, *_ = suite.figures(SECONDS, PROCESSOR, [GOOD]).ratios
    assert (strict.value, strict.bar) == (12 / (4 + (19 - 3) / 2), 1.2)
    assert (loose.value, loose.bar) == (12 / (4 + (25 - 3) / 2), None)


@pytest.mark.parametrize(
    ("evidence", "missed"),
    [
        (GOOD, set()),
        (Evidence("1 failed", GOOD.labs, ()), {"runs that passed, of 2"}),
        (Evidence("", ("pytest-a", "pytest-a", "pytest-b", "pytest-a"), ()), {"runs whose workers had one lab, of 2"}),
        (Evidence("", ("pytest-a",) * 3, ()), {"runs whose workers had one lab, of 2"}),
        (Evidence("", GOOD.labs, ("network mailstack-pytest-a_edge",)), {"runs that left nothing, of 2"}),
    ],
)
def test_a_run_that_is_no_good_misses_its_bar(evidence: Evidence, missed: set[str]) -> None:
    _, _, *counts = suite.figures(SECONDS, PROCESSOR, [GOOD, evidence]).ratios
    assert {each.title for each in counts if not each.met} == missed
    assert evidence.good is not bool(missed)
