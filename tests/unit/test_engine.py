"""What the SDK raises, as errors of ours."""

from __future__ import annotations

import docker
import pytest

from mailstack.engine import Engine
from mailstack.errors import EngineError, Interrupted


def test_who_interrupts_a_question_is_not_told_that_there_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted("interrupted")

    # The SDK asks for the engine's version first, and makes its own error of whatever happens.
    monkeypatch.setattr(docker.APIClient, "version", interrupted)
    with pytest.raises(Interrupted):
        Engine("unix:///nowhere/docker.sock").warm_up()


def test_where_nobody_listens_there_is_no_engine() -> None:
    with pytest.raises(EngineError, match="no Docker engine answers"):
        Engine("unix:///nowhere/docker.sock").warm_up()
