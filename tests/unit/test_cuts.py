"""The criteria for a good cut of the connection, in tests/docker/cuts.py."""

from __future__ import annotations

import pytest

from tests.docker.cuts import Cut

TOLD = "tester: the connection was lost\n  → when it is reachable: mailstack down --host tester\n"


@pytest.mark.parametrize(
    ("code", "seconds", "message", "left", "bad", "missed"),
    [
        (3, 1.0, TOLD, (), False, False),
        (3, 16.0, TOLD, (), True, False),
        (3, 1.0, TOLD, ("a",), True, False),
        (3, 1.0, "it was cut\n  → mailstack down --host tester\n", (), True, False),
        (1, 1.0, TOLD, (), True, False),
        (0, 1.0, "", (), False, True),
        (0, 1.0, "", ("a",), True, False),
    ],
)
def test_a_cut_is_good_when_it_is_told_in_time_with_the_host_first_and_leaves_nothing(
    code: int, seconds: float, message: str, left: tuple[str, ...], bad: bool, missed: bool
) -> None:
    cut = Cut(0.5, code, seconds, message, left)
    assert (cut.bad, cut.missed) == (bad, missed)
    assert ("not cut" in str(cut)) == missed
