"""A wrong command, run in a place of its own, and what is true of every one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker.bad import Outcome, Traces, alone, run, run_here
from tests.docker.bad_input import RUN


@pytest.fixture(scope="module")
def traces() -> Iterator[Traces]:
    """An owner and a runtime directory of this module's own."""
    with alone("bad") as found:
        yield found


@pytest.fixture(scope="module")
def standing(traces: Traces) -> str:
    """A lab that is up."""
    name = f"standing-{RUN}"
    assert run(["up", "-n", name]).code == 0
    return name


@pytest.fixture
def wrong(
    traces: Traces, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Outcome]:
    """Runs a wrong command, and holds what is true of every one."""

    def judge(*argv: str, code: int = 2, alone: bool = False) -> Outcome:
        before = traces.all()
        outcome = run(argv) if alone or _number(request) % 8 == 0 else run_here(argv, capfd)
        assert "Traceback" not in outcome.err
        assert (outcome.code, len(outcome.messages), outcome.out) == (code, 1, ""), outcome
        assert outcome.rest == []
        assert traces.all() == before
        return outcome

    return judge


def _number(request: pytest.FixtureRequest) -> int:
    """Which of a test's cases this is."""
    number: int = request.node.callspec.indices.popitem()[1]
    return number
