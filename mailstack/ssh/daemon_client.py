"""Join the daemon that keeps the connection to a host over SSH (`daemon`), and start it when none runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mailstack import state
from mailstack.errors import HostError
from mailstack.model import Json
from mailstack.runner.local import Local, module_command
from mailstack.secret import Ask, Secret
from mailstack.ssh import address, wire
from mailstack.ssh.address import ENGINE, LOCK
from mailstack.ssh.connection import Connection, connect, unreadable_reply
from mailstack.storage import directories
from mailstack.storage.directories import Marker
from mailstack.storage.locks import same_file

# How often a password is asked for (ssh_config(5), NumberOfPasswordPrompts).
_TRIES = 3


def join(host: address.Host, directory: Path, ask: Ask) -> Connection:
    """Join the daemon that keeps the connection to a host in this directory, or start it. Raises HostError."""
    while True:
        fd = _open_lock(directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # of several commands that start together, one starts the daemon
            if not same_file(fd, directory / LOCK):
                continue  # the previous daemon has just exited, and removed its files
            if (sock := connect(directory)) is None:
                try:
                    _start_with_answers(host, directory, ask)
                except BaseException:
                    discard(directory)
                    raise
                sock = connect(directory)
            if sock is None:
                raise HostError(f"{host}: the connection was lost right after it was opened", remedy="try again")
            return Connection(host, directory, sock)
        finally:
            os.close(fd)


def _open_lock(directory: Path) -> int:
    """Open the lock of a host's directory. Create the directory if needed. Raises HostError."""
    root = directory.parent
    while True:
        directories.make(root, Marker(directories.ROOT))
        with contextlib.suppress(FileNotFoundError), directories.locked(root):
            directories.make(directory, Marker(directories.HOST))
            return directories.open_file(directory / LOCK, os.O_RDWR | os.O_CREAT)


def labs(directory: Path) -> list[state.State]:
    """Return the states of this user's labs on the host of a directory."""
    endpoint = state.endpoint_of(f"unix://{directory / ENGINE}")
    homes = [home for home in state.homes(directory.parent) if home.endpoint == endpoint]
    return [lab for home in homes for lab in state.others(home, "")]


def discard(directory: Path) -> None:
    """Remove a host's directory, unless there is a lab on that host."""
    if not labs(directory):
        with contextlib.suppress(OSError), directories.locked(directory.parent):
            directories.remove(directory)


def _start_with_answers(host: address.Host, directory: Path, ask: Ask) -> None:
    answers: dict[str, Secret] = {}
    tries: Counter[str] = Counter()
    reply = _start_once(host, directory, answers)
    while (question := str(reply.get("question", ""))) and tries[question] < _TRIES and (answer := ask(question)):
        tries[question] += 1
        answers[question] = answer
        reply = _start_once(host, directory, answers)
    if "error" in reply:
        raise wire.error_of(reply)


def _start_once(host: address.Host, directory: Path, answers: Mapping[str, Secret]) -> Json:
    """Start the daemon. Return its report of success or failure."""
    near, far = socket.socketpair()
    with near, far:
        environment = {directories.VARIABLE: str(directory.parent.parent)}
        daemon = module_command("mailstack.ssh.daemon", str(host), environment=environment)
        Local().release(daemon, stdin=far.fileno())
        far.close()
        revealed = {question: answer.reveal() for question, answer in answers.items()}
        try:
            with near.makefile("rwb") as stream:
                wire.send(stream, revealed)
                reply = wire.receive(stream)
        except wire.ProtocolError as error:
            raise unreadable_reply(host, error) from None
        except OSError:  # also from closing the stream, which flushes it again
            reply = None
    if reply is None:
        raise HostError(f"{host}: the daemon that keeps the connection exited", remedy="try again")
    return reply
