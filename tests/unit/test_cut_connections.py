"""The end of a connection to an SSH server of the test, on either side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.errors import HostError
from mailstack.model import Command
from mailstack.ssh import remote
from mailstack.ssh.remote import Remote
from tests.unit.ssh_server import Server
from tests.unit.ssh_user import connected

pytestmark = [pytest.mark.sockets, pytest.mark.process]

Both = tuple[Server, Remote]


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Both]:
    """Yield a connection that a test may cut."""
    with connected(tmp_path) as both:
        yield both


def test_a_command_whose_connection_is_cut_is_an_error(lone: Both) -> None:
    server, box = lone
    command = Command(("sh", "-c", "echo begun >&2; exec sleep 5"))
    with pytest.raises(HostError, match="the connection was lost"):
        box.run(command, on_line=lambda line: server.drop())
    box.wait()
    with pytest.raises(HostError, match="the connection was lost"):
        box.session()


def test_a_host_that_is_silent_is_given_up(lone: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SILENCE_SECONDS", 0)
    lone[1].wait()
    with pytest.raises(HostError, match="the connection was lost"):
        lone[1].port(1)


def test_a_line_that_is_no_socket_has_no_unsent_data() -> None:
    assert not remote._has_unsent_data(object())
