"""Commands, really run on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mailstack.errors import CommandFailed, DeadlinePassed, HostError, Interrupted
from mailstack.model import Command, Deadline
from mailstack.runner import output
from mailstack.runner.local import Local, shell_line
from tests.runs import Commands, gone, number, sh

pytestmark = pytest.mark.process


@pytest.fixture
def runner() -> Local:
    return Local()


class TestHere(Commands):
    """The same tests as over SSH."""


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


def test_more_on_standard_output_than_can_be_kept_is_an_error_and_the_command_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output, "STDOUT_BYTES", 1 << 20)
    mark = number()
    with pytest.raises(CommandFailed, match="printed more than 1 MiB"):
        Local().run(sh(f"sleep {mark} 0 & yes"))
    assert gone(Local(), mark)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_a_command_that_does_not_listen_and_its_children(times: int) -> None:
    mark = number()
    # SIGINT as Python comes with it: again and again, since somebody may be impatient.
    code = f"""
from mailstack.runner import child
from mailstack.model import Command
from mailstack.runner.local import Local
child.INTERRUPTED_SECONDS = 1
Local().run(Command(("sh", "-c", "trap '' TERM; (trap '' TERM; sleep {mark} 0) & echo begun >&2; wait")), on_line=print)
"""
    command = [sys.executable, "-uc", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "begun\n"
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1 if times > 1 else 20)
        said = process.communicate(timeout=20)[1]
    assert said.endswith("KeyboardInterrupt\n")
    assert gone(Local(), mark)


def test_the_last_words_of_an_interrupted_command_are_heard_and_what_the_callback_says_of_them_is_noted() -> None:
    def hear(line: str) -> None:
        if line == "begun":
            raise Interrupted("now")
        raise ZeroDivisionError(line)

    with pytest.raises(Interrupted) as caught:
        Local().run(sh("trap 'echo last >&2; exit' TERM; echo begun >&2; while :; do :; done"), on_line=hear)
    assert len(caught.value.__notes__) == 1
    assert caught.value.__notes__[0].endswith("was being ended: last")


def test_nothing_is_left_open_or_unreaped(tmp_path: Path) -> None:
    def there() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    Local().run(sh("exit"))
    before = there()
    for _ in range(5):
        Local().run(sh("cat", input=b"x" * 10**6))
        Local().attach(sh("exit"))
        Local().release(sh("exit"))
        with pytest.raises(HostError):
            Local().run(Command(("no-such-command",)))
        with pytest.raises(DeadlinePassed):
            Local().run(sh("sleep 100", input=b"x" * 10**6), deadline=Deadline.after(0.05))
        with pytest.raises(ZeroDivisionError):
            Local().run(sh("echo 0 >&2"), on_line=lambda line: print(1 // int(line)))
        ended = Local().detach(sh("exit 5"), tmp_path / "log")
        while ended() is None:
            os.sched_yield()
        assert ended() == 5
    while there() != before:  # a thread that has just ended
        os.sched_yield()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_an_interrupted_attached_command_is_asked_to_end_before_it_is_killed() -> None:
    code = """
from mailstack.model import Command
from mailstack.runner.local import Local
Local().attach(Command(("sh", "-c", "trap 'echo tidy; exit' TERM; echo begun; while :; do sleep 0.01; done")))
"""
    with subprocess.Popen([sys.executable, "-uc", code], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)  # to this one alone, where a terminal tells both
        assert process.communicate(timeout=20)[0] == "tidy\n"


def test_where_sigchld_is_ignored_no_command_is_taken_for_one_that_did_well() -> None:
    code = """
import signal
from mailstack.errors import HostError
from mailstack.model import Command
from mailstack.runner.local import Local
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
try:
    print(Local().run(Command(("false",))))
except HostError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "`false`: its exit code is unknown, because SIGCHLD is ignored\n"


def test_the_command_hears_of_its_children_whoever_starts_it() -> None:
    code = (
        "import signal, os, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        "os.execv(sys.executable, [sys.executable, '-m', 'mailstack', 'version', '--json'])"
    )
    environment = {**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert json.loads(done.stdout)["compose"]
    assert "SIGCHLD" not in done.stderr


def python(code: str) -> Command:
    return Command((sys.executable, "-c", code))


def test_a_command_that_does_not_exist_is_an_error_of_the_host() -> None:
    with pytest.raises(HostError, match="no-such-command: cannot be run"):
        Local().run(Command(("no-such-command",)))


def test_what_is_shown_of_a_command_has_neither_its_environment_nor_its_input() -> None:
    command = Command(("/usr/bin/tool", "a b"), {"TOKEN": "hunter2"}, b"hunter2")
    assert shell_line(command) == "tool 'a b'"


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

    def arrive(_: str) -> None:
        there.wait(20)

    def run(code: str) -> int:
        return runner.run(python(code), on_line=arrive).code

    with ThreadPoolExecutor(2) as pool:
        codes = [pool.submit(run, code) for code in (LISTENS, DEAF)]
        there.wait(20)
        runner.interrupt(Deadline.after(0.5))
        assert [code.result(20) for code in codes] == [130, -signal.SIGKILL]
    with pytest.raises(Interrupted):
        runner.run(python("pass"))
