"""A command as a line for a login shell, and its output separated from the shell's own. The shells are real."""

from __future__ import annotations

import shutil
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.model import Command
from mailstack.ssh import execution
from mailstack.ssh.transport import ended_by

SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "fish", "ksh", "tcsh") if shutil.which(shell)]
MARK = b"mailstack-1:"


def after_mark(*pieces: bytes) -> bytes:
    found = bytearray()
    begin = execution.OutputStart(MARK, found.extend)
    for piece in pieces:
        begin(piece)
    begin.finish()
    return bytes(found)


@given(some.binary(), some.binary(), some.lists(some.integers(0, 200)))
def test_what_comes_before_the_mark_is_left_out_however_it_is_cut(noise: bytes, said: bytes, cuts: list[int]) -> None:
    whole = noise.replace(MARK, b"") + MARK + said
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[start:end] for start, end in pairwise(places)]
    assert after_mark(*pieces) == said


def test_without_a_mark_what_the_shell_has_said_last_is_what_there_is() -> None:
    assert after_mark(b"This account ", b"is closed\n") == b"This account is closed\n"
    assert after_mark(b"x" * (1 << 20), b"closed").endswith(b"xclosed")
    assert len(after_mark(b"x" * (1 << 20))) == 1 << 16


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.process
def test_the_line_runs_the_command_after_the_mark_in_any_shell(shell: str, tmp_path: Path) -> None:
    words = ("printf", "%s|", "a b", "it's", '"', "$HOME", "`id`", "*", "\\", "-n", "")
    line = execution.login_shell_line(Command(words, {"X": "1 2"}), MARK)
    done = subprocess.run([shell, "-c", line], capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout == MARK + "|".join((*words[2:], "")).encode()
    assert done.stderr == MARK


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.process
def test_the_command_takes_the_place_of_the_shell(shell: str) -> None:
    line = execution.login_shell_line(Command(("sh", "-c", "kill -KILL $$")), MARK)
    assert subprocess.run([shell, "-c", line], capture_output=True, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize(("name", "code"), [("KILL", -9), ("TERM", -15), ("HUP", 255), ("no such", 255), ("_DFL", 255)])
def test_a_signal_that_ended_a_command_is_its_code(name: str, code: int) -> None:
    assert ended_by(name) == code
