"""Login shells of a host that print something before each command: this output is no part of an answer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from mailstack.model import Command, Deadline
from mailstack.target import choice
from tests.docker import nested
from tests.docker.remote import answer, left, mailstack
from tests.runs import sh

pytestmark = [pytest.mark.docker, pytest.mark.remote]

# What stands in ~/.bashrc, which bash reads when sshd starts it (bash(1), “Invocation”).
TALK = {
    "a line": "echo Welcome to the machine",
    "no line end": "printf Welcome; printf Welcome >&2",
    "on standard error": "echo Welcome >&2",
    "what looks like an answer": "printf '%s\\n' /tmp /tmp/x.sock socket root 0 1; echo '{\"error\": \"no\"}'",
    "much": "head -c 9000000 /dev/zero; head -c 9000000 /dev/zero >&2",
    "bytes": "printf '\\377\\000\\033[31m\\n'",
    "a failure": "false; no-such-command; set -- a b c",
}


@contextlib.contextmanager
def talking(machine: nested.Machine, user: str, text: str) -> Iterator[None]:
    """Make bash the user's login shell and let it print this within `with`."""
    machine.run("usermod", "--shell", "/bin/bash", user)
    machine.run("sh", "-c", f'printf "%s\\n" "$1" > /home/{user}/.bashrc', "sh", text)
    try:
        yield
    finally:
        machine.run("rm", f"/home/{user}/.bashrc")
        machine.run("usermod", "--shell", "/bin/sh", user)


@pytest.mark.parametrize("user", ["tester", "sudoer"])
@pytest.mark.parametrize("text", TALK.values(), ids=TALK)
def test_a_login_shell_that_says_something_is_no_obstacle(machine: nested.Machine, user: str, text: str) -> None:
    with talking(machine, user, text):
        assert answer(machine, "version", host=user)["engine"].startswith("26.")
        assert left(machine, there=False) == []


def test_what_a_login_shell_says_is_not_taken_for_what_a_command_prints(machine: nested.Machine) -> None:
    with (
        talking(machine, "tester", TALK["no line end"]),
        mock.patch.dict(os.environ, {"HOME": str(machine.home)}),
    ):
        target = choice.choose(os.environ, host="tester")
        seen: list[str] = []
        result = target.runner.run(
            sh("cat; echo err >&2", input=b"in"), deadline=Deadline.after(20), on_line=seen.append
        )
        assert (result.code, result.stdout, result.stderr, seen) == (0, "in", "err", ["err"])
        assert target.free_bytes(Path("/dev/shm")) > 0


def test_a_login_shell_that_runs_nothing_is_told_with_its_words(machine: nested.Machine) -> None:
    with talking(machine, "tester", "echo This account is closed >&2; exit 1"):
        said = mailstack(machine, "up", code=3).stderr
    assert "tester: its shell did not report the expected facts\n  This account is closed\n" in said
    assert left(machine) == []


def test_a_command_that_is_not_there_is_told(machine: nested.Machine) -> None:
    with mock.patch.dict(os.environ, {"HOME": str(machine.home)}):
        result = choice.choose(os.environ, host="tester").runner.run(Command(("no-such-command",)))
    assert result.code == 127
    assert "no-such-command: not found" in result.stderr
