"""Durations are written as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.text.durations import spoken

UNITS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.0411, "41 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (1.32, "1.3 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (252, "4 min 12 s"),
        (3599.6, "1 h"),
        (7500, "2 h 5 min"),
        (86399, "1 d"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (-12, "-12 s"),
    ],
)
def test_a_duration_is_said_in_two_units_at_most(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


@given(some.floats(0, 1e9))
def test_what_is_said_is_what_it_was_but_for_rounding(seconds: float) -> None:
    said = [(float(number), UNITS[unit]) for number, unit in re.findall(r"([\d.]+) (\w+)", spoken(seconds))]
    assert len(said) <= 2
    # A twentieth of what it was, at most, or half a millisecond: a second unit makes it much less.
    assert abs(sum(number * size for number, size in said) - seconds) <= max(seconds / 20, 0.0005)
