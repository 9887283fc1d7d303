"""Commands, run for real on this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mailstack.errors import HostError, Interrupted
from mailstack.model import Command, Deadline
from mailstack.runner import Local, shown
from tests.runs import Commands, gone, number, sh


@pytest.fixture
def runner() -> Local:
    return Local()


class TestHere(Commands):
    """As over SSH."""


def test_an_interruption_while_a_command_is_started_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    mark, popen = number(), subprocess.Popen

    def interrupted(*argv: Any, **how: Any) -> Any:
        process = popen(*argv, **how)
        monkeypatch.undo()
        signal.raise_signal(signal.SIGUSR1)  # it is there, and nobody has been told of it
        return process

    def interrupt(*_: object) -> None:
        raise Interrupted("now")

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            Local().run(sh(f"exec sleep {mark} 0"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert gone(Local(), mark)


def python(code: str) -> Command:
    return Command((sys.executable, "-c", code))


def test_a_command_that_does_not_exist_is_an_error_of_the_host() -> None:
    with pytest.raises(HostError, match="no-such-command: cannot be run"):
        Local().run(Command(("no-such-command",)))


def test_what_is_shown_of_a_command_has_neither_its_environment_nor_its_input() -> None:
    command = Command(("/usr/bin/tool", "a b"), {"TOKEN": "hunter2"}, b"hunter2")
    assert shown(command) == "tool 'a b'"


def test_a_child_keeps_the_descriptors_that_it_is_to_inherit(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        code = f"import os; os.write({file.fileno()}, b'x')"
        assert Local((file.fileno(),)).run(python(code)).code == 0
        assert Local().run(python(code)).code == 1


# What Ctrl-C ends, and what is deaf to it; either says that it is there.
LISTENS = (
    "import signal, sys\ntry: print(file=sys.stderr, flush=True); signal.pause()\nexcept KeyboardInterrupt: exit(130)"
)
DEAF = "import signal, sys\nsignal.signal(2, signal.SIG_IGN); print(file=sys.stderr, flush=True); signal.pause()"


def test_an_interruption_is_passed_on_to_what_runs_in_other_threads_and_nothing_starts_after_it() -> None:
    runner, there = Local(), threading.Barrier(3)

    def run(code: str) -> int:
        return runner.run(python(code), on_line=lambda line: there.wait(20) and None).code

    with ThreadPoolExecutor(2) as pool:
        codes = [pool.submit(run, code) for code in (LISTENS, DEAF)]
        there.wait(20)
        runner.interrupt(Deadline.after(0.5))
        assert [code.result(20) for code in codes] == [130, -signal.SIGKILL]
    with pytest.raises(Interrupted):
        runner.run(python("pass"))
