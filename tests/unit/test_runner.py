"""Commands, run for real on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from mailstack.errors import CommandFailed, DeadlinePassed, HostError, Interrupted
from mailstack.model import Command, Deadline
from mailstack.runner import Local, must, shown


def python(code: str, **more: object) -> Command:
    return Command((sys.executable, "-c", code), **more)  # type: ignore[arg-type]


def test_a_result_has_the_code_and_both_outputs() -> None:
    result = Local().run(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"))
    assert (result.code, result.stdout, result.stderr) == (7, "out\n", "err")


def test_input_and_environment_reach_the_command() -> None:
    command = python("import os; print(input(), os.environ['X'])", input=b"in\n", environment={"X": "1"})
    assert Local().run(command).stdout == "in 1\n"


def test_a_command_that_reads_no_input_is_not_an_error() -> None:
    assert Local().run(python("", input=b"x" * 10**6)).code == 0


def test_lines_are_seen_as_they_come() -> None:
    seen: list[str] = []
    Local().run(python("import sys; print('a', file=sys.stderr); print('b', file=sys.stderr)"), on_line=seen.append)
    assert seen == ["a", "b"]


def test_a_command_that_takes_too_long_is_ended_and_the_message_says_when() -> None:
    with pytest.raises(DeadlinePassed, match=r"not done within 0\.3 s"):
        Local().run(python("import time; time.sleep(60)"), deadline=Deadline.after(0.3))


def test_a_command_that_does_not_exist_is_an_error_of_the_host() -> None:
    with pytest.raises(HostError, match="no-such-command: cannot be run"):
        Local().run(Command(("no-such-command",)))


def test_a_failed_command_is_reported_with_its_last_lines() -> None:
    with pytest.raises(CommandFailed, match="ended with code 3") as caught:
        must(Local(), python("import sys; print('the reason', file=sys.stderr); sys.exit(3)"))
    assert caught.value.details == "the reason"


def test_what_is_shown_of_a_command_has_neither_its_environment_nor_its_input() -> None:
    command = Command(("/usr/bin/tool", "a b"), {"TOKEN": "hunter2"}, b"hunter2")
    assert shown(command) == "tool 'a b'"


def test_an_interruption_ends_the_command_and_goes_on(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt(*_: object) -> None:
        raise Interrupted("now")

    before = signal.signal(signal.SIGUSR1, interrupt)

    def ask() -> None:
        while not mark.exists() or not mark.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR1)

    threading.Thread(target=ask).start()
    try:
        with pytest.raises(Interrupted):
            Local().run(python(code))
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_a_child_keeps_the_descriptors_that_it_is_to_inherit(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        code = f"import os; os.write({file.fileno()}, b'x')"
        assert Local((file.fileno(),)).run(python(code)).code == 0
        assert Local().run(python(code)).code == 1
