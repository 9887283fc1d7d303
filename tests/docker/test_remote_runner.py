"""Commands on a host over SSH: the tests of local commands hold for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import pytest

from mailstack.errors import DeadlinePassed
from mailstack.model import Command, Deadline
from mailstack.runner.local import CommandRunner
from mailstack.ssh.transport import STREAM_LOCAL
from mailstack.target import choice
from tests.docker import nested
from tests.runs import Commands

pytestmark = [pytest.mark.docker, pytest.mark.remote]


@pytest.fixture(scope="module")
def runner(machine: nested.Machine) -> Iterator[CommandRunner]:
    """Return the runner of the machine, used by this process as by a command."""
    with mock.patch.dict(os.environ, {"HOME": str(machine.home)}):
        yield choice.choose(os.environ, host="tester").runner


class TestThere(Commands):
    """The tests of the local runner."""


def test_what_is_said_may_name_the_kind_of_channel_that_leads_to_a_socket(runner: CommandRunner) -> None:
    """To which alone something is added as it goes out."""
    assert runner.run(Command(("cat",), input=STREAM_LOCAL.encode())).stdout == STREAM_LOCAL
    assert runner.run(Command(("echo", STREAM_LOCAL))).stdout == f"{STREAM_LOCAL}\n"


def test_a_command_that_takes_too_long_is_told_with_its_host(runner: CommandRunner) -> None:
    with pytest.raises(DeadlinePassed, match=r"^tester: `sleep 60` did not finish within 0\.1 s$"):
        runner.run(Command(("sleep", "60")), deadline=Deadline.after(0.1))
