"""The user of an SSH server of the test: a home directory, and connections that leave nothing behind."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import paramiko
import pytest

from mailstack.ssh import remote
from mailstack.ssh.remote import Remote
from tests.unit.ssh_server import SECONDS, Server, key


@contextlib.contextmanager
def threads_ended() -> Iterator[None]:
    """Fail when a thread that was started meanwhile does not end."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + SECONDS
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), thread


def free_port() -> int:
    """Return a free port below those that the system chooses, so that no other test is given it meanwhile."""
    while True:
        port = 20000 + secrets.randbelow(12000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def home(directory: Path, patch: pytest.MonkeyPatch, *servers: Server) -> Path:
    """Give the user a home directory, and a key with which these servers let him in. Return its `.ssh`."""
    ssh = directory / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "known_hosts").write_text("".join(server.known for server in servers))
    own = key(ssh / "own")
    (ssh / "config").write_text(f"Host *\n  IdentityFile {own}\n")
    for server in servers:
        server.keys.add(paramiko.Ed25519Key.from_private_key_file(str(own)).get_base64())
    patch.setenv("HOME", str(directory))
    patch.delenv("SSH_AUTH_SOCK", raising=False)
    return ssh


@contextlib.contextmanager
def ticking(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorten the waits of what watches a connection, and end them with the test."""
    over = threading.Event()
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: over.wait(min(seconds, 0.05)))
    patch.setattr(remote, "time", clock)
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def connected(directory: Path) -> Iterator[tuple[Server, Remote]]:
    """Yield a server and a connection to it."""
    with (
        threads_ended(),
        pytest.MonkeyPatch.context() as patch,
        contextlib.closing(Server(directory)) as server,
        ticking(patch),
    ):
        home(directory, patch, server)
        found = Remote(server.host, {})
        found.open()
        with contextlib.closing(found):
            yield server, found
