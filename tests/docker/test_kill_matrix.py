"""A sample of the kill matrix; `python -m tests.kills --seed N --trials M` runs it at any length."""

from __future__ import annotations

import random

import pytest

from tests.kills.trials import COMMANDS, SIGNALS, trials

pytestmark = pytest.mark.docker


def test_whatever_is_interrupted_is_healed_by_one_up_or_removed_by_one_down() -> None:
    seed = random.randrange(10**6)
    print(f"python -m tests.kills --seed {seed} --trials 30")  # does the same again
    every = list(trials(30, seed))
    assert [str(trial) for trial in every if trial.wrong] == []
    assert {trial.command for trial in every} == set(COMMANDS) and len({trial.signal for trial in every}) == len(
        SIGNALS
    )
    assert [str(trial) for trial in every if trial.ended == "HANGS"] == []
