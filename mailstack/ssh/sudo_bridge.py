"""Reach an engine that the user may access only by sudo, over a program on the host between two sockets."""

from __future__ import annotations

import secrets
import threading
from importlib import resources
from typing import Any

from mailstack.errors import HostError
from mailstack.model import Command
from mailstack.ssh.remote import Remote

# Timeout for the program's start, and for its end; in seconds.
_BEGIN_SECONDS = 10.0
_END_SECONDS = 5.0


class Bridge:
    """The bridge program of one connection. It is started on demand, and again when it has exited."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._channel: Any = None
        self._lock = threading.Lock()
        self.name = f"engine-{secrets.token_hex(4)}"  # name of its socket; the user's other connections have their own

    def socket(self, place: str, engine: str, user: int) -> str:
        """Return the path of the user's socket, in the directory `place`, that leads to the socket `engine`.

        Raises HostError when the program cannot be run.
        """
        path = f"{place}/{self.name}"
        with self._lock:
            if self._channel is not None and not self._channel.exit_status_ready():
                return path
            command = Command(("sudo", "-n", "perl", "-e", program(), path, engine, str(user)))
            channel, errors = self._remote.program(command, b"ready\n", _BEGIN_SECONDS)
            if channel is not None:
                self._channel = channel
                return path
        raise HostError(
            f"{self._remote.host}: the bridge to its engine by sudo cannot be started",
            remedy="it needs Perl there (Debian: apt-get install perl-base); or add the user to the group `docker`",
            details=errors,
        )

    def end(self) -> None:
        """End the program, and wait for its exit."""
        if self._channel is not None:
            self._channel.shutdown_write()
            self._channel.status_event.wait(_END_SECONDS)


def program() -> str:
    """Return the program, in Perl, without its comments, because it is part of a command line."""
    text = resources.files(__package__).joinpath("sudo_bridge.pl").read_text(encoding="utf-8")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
