"""SIGKILL at random moments leaves nothing; `python -m tests.docker.kills` does it thirty times."""

from __future__ import annotations

import random

import pytest

from tests.docker.kills import KINDS, kills

pytestmark = pytest.mark.docker


def test_whoever_is_killed_at_whatever_moment_nothing_is_left() -> None:
    seed = random.randrange(10**6)
    print(f"python -m tests.docker.kills {len(KINDS)} {seed}")  # does the same again
    every = list(kills(len(KINDS), seed))
    assert [str(kill) for kill in every if not kill.good] == []
    assert any(kill.found for kill in every)
