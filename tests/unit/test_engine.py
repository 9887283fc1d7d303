"""Errors of the SDK become errors of mailstack."""

from __future__ import annotations

import subprocess
import sys

import docker
import pytest

from mailstack.engine.engine import Engine
from mailstack.errors import EngineError, Interrupted
from mailstack.target.target import LocalTarget


def test_who_interrupts_a_question_is_not_told_that_there_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted("interrupted")

    # The SDK asks for the engine's version first, and makes its own error of whatever happens.
    monkeypatch.setattr(docker.APIClient, "version", interrupted)
    with pytest.raises(Interrupted):
        Engine(LocalTarget("unix:///nowhere/docker.sock")).pull("x")


@pytest.mark.sockets
def test_where_nobody_listens_there_is_no_engine() -> None:
    with pytest.raises(EngineError, match="no Docker engine answers"):
        Engine(LocalTarget("unix:///nowhere/docker.sock")).has_image("x")
    with pytest.raises(EngineError, match="no Docker engine answers"):
        Engine(LocalTarget("unix:///nowhere/docker.sock")).networks()


@pytest.mark.process
def test_several_threads_may_ask_the_first_question() -> None:
    code = """
import threading
from mailstack.engine.engine import Engine
from mailstack.target.target import LocalTarget
from mailstack.errors import EngineError

def ask():
    try:
        Engine(LocalTarget("unix:///nowhere/docker.sock")).has_image("x")
    except EngineError as error:
        print(error.message.split(" at ")[0])

threads = [threading.Thread(target=ask) for _ in range(8)]
for each in threads:
    each.start()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout.count("no Docker engine answers"), result.stderr) == (8, "")
