"""The requirements of a lab on its host, in numbers."""

from __future__ import annotations

import pytest

from mailstack.host import requirements
from mailstack.target.target import LocalTarget


@pytest.mark.parametrize("version", ["20.10.24+dfsg1", "20.10", "26.1.5", "29.0.0-rc.1", "100.0"])
def test_an_engine_that_is_new_enough_will_do(version: str) -> None:
    assert requirements.new_enough(version)


@pytest.mark.parametrize("version", ["19.03.15", "20.09.9", "1.13.1", "18.09.1-ce", ""])
def test_an_older_one_or_one_that_does_not_say_will_not(version: str) -> None:
    assert not requirements.new_enough(version)


def test_by_how_much_a_clock_differs_is_said_in_whole_seconds() -> None:
    assert (requirements.difference(60.4), requirements.difference(-3.6)) == ("60 s ahead", "4 s behind")


def test_this_machines_own_clock_is_not_told() -> None:
    assert requirements.clock(LocalTarget()) == ""
