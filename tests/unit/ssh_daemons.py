"""Daemons of connections over SSH, in threads of the test."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from mailstack.model import Command
from mailstack.ssh import daemon, daemon_client, forwarding, remote
from tests.unit.ssh_server import SECONDS


class Daemons:
    """Runs each daemon in a thread, with what the operating system does at a process's end."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        self._servers: list[Any] = []
        self._remotes: list[Any] = []
        self._stdin = os.dup(0)
        record, remotes = self._servers.append, self._remotes.append

        class Sockets(forwarding.Sockets):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                record(self)

            def process_request_thread(self, *args: Any) -> None:
                with contextlib.suppress(SystemExit):
                    super().process_request_thread(*args)

        class Remote(remote.Remote):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                remotes(self)

        patch.setattr(daemon, "Sockets", Sockets)
        patch.setattr(daemon, "Remote", Remote)
        patch.setattr(daemon_client, "Local", lambda: SimpleNamespace(release=self.release))
        patch.setattr(os, "_exit", self._exit)

    def release(self, command: Command, *, stdin: int) -> None:
        """Start a daemon; see `runner.local.Local`."""

        def run() -> None:
            try:
                daemon.main(*command.argv[3:])
            except SystemExit:
                pass
            finally:
                os.dup2(self._stdin, 0)

        self.ended()  # the previous one restores standard input, too
        os.dup2(stdin, 0)
        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def _exit(self, code: int) -> None:
        for one in self._remotes:
            if (transport := one._connection and one._connection.transport) is not None:
                transport.close()
        raise SystemExit(code)

    def ended(self) -> None:
        """Wait until all daemons have ended."""
        for thread in self.threads:
            thread.join(SECONDS)
            assert not thread.is_alive()

    def close(self) -> None:
        """End all daemons, and close what they have open."""
        for one in self._remotes:
            one.close()
        self.ended()
        os.close(self._stdin)
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.socket.shutdown(socket.SHUT_RDWR)
            server.shutdown()
            server.server_close()
