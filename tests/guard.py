"""A guard against tests that reach out unmarked: for the engine, the network, a socket or another process.

What a test does is seen by an audit hook (PEP 578); what the processes that it starts do is not, so those of a test
without the marker `docker` are given an engine's address at which the guard listens.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping
from typing import Any

import pytest

# What each marker allows: its own name, and more.
ALLOWS: Mapping[str, frozenset[str]] = {
    "sockets": frozenset({"sockets"}),
    "process": frozenset({"process"}),
    "wheel": frozenset({"process"}),
    "browser": frozenset({"sockets", "process"}),
    "docker": frozenset({"docker", "sockets", "process"}),
}
PROCESS_EVENTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.system", "os.fork", "os.forkpty"})
SOCKET_EVENTS = frozenset({"socket.connect", "socket.bind", "socket.sendto"})
LOOKUP_EVENTS = frozenset({"socket.getaddrinfo", "socket.gethostbyname"})
EVENTS = PROCESS_EVENTS | SOCKET_EVENTS | LOOKUP_EVENTS
ENGINE = os.path.realpath("/var/run/docker.sock")


class Unmarked(Exception):
    """A test does what its markers do not allow."""


def _of_host(host: str | bytes | None) -> str:
    """The marker that a connection to a host, or a look-up of its name, needs: `network` is none that there is."""
    name = os.fsdecode(host or "").rstrip(".").lower()
    if name in ("", "localhost", socket.gethostname().lower()):
        return "sockets"
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return "docker"  # a question to a name server
    if address.is_loopback or address.is_unspecified:
        return "sockets"
    return "docker" if address.is_private else "network"  # a lab's networks are private


def _of_socket(family: int, address: Any) -> str:
    """The marker that a connection to an address needs."""
    if family in (socket.AF_INET, socket.AF_INET6):
        return _of_host(address[0])
    if family == socket.AF_UNIX and os.path.realpath(os.fsdecode(address)) == ENGINE:
        return "docker"
    return "sockets"


def _of_program(program: Any) -> str:
    """The marker that a program needs."""
    return "docker" if os.path.basename(os.fsdecode(program)).startswith("docker") else "process"  # noqa: PTH119


def needed(event: str, args: tuple[Any, ...]) -> str:
    """The marker that a test needs for what an audit event tells."""
    if event in LOOKUP_EVENTS:
        return _of_host(args[0])
    if event in SOCKET_EVENTS:
        return _of_socket(args[0].family, args[1])
    if event == "subprocess.Popen":
        return _of_program(args[0] or args[1][0])
    return "process"


class Guard:
    """Fails each test that does what none of its markers allows."""

    def __init__(self) -> None:
        self._test = ""
        self._allowed: frozenset[str] = frozenset()
        self._seen: list[str] = []
        self._patch = pytest.MonkeyPatch()
        self._process = os.getpid()
        self._place = tempfile.TemporaryDirectory(prefix="mailstack-guard-")
        self._engine = socket.socket(socket.AF_UNIX)
        self._engine.bind(f"{self._place.name}/docker.sock")
        self._engine.listen()
        threading.Thread(target=self._answer, daemon=True).start()
        sys.addaudithook(self._audit)

    def _answer(self) -> None:
        """Hang up on each process that takes the guard for an engine."""
        while True:
            self._engine.accept()[0].close()
            self._seen.append("a process asks the engine, without the marker `docker`")

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in EVENTS or not self._test or os.getpid() != self._process:
            return
        marker = needed(event, args)
        if marker not in self._allowed:
            what = f"{event} {args[1 if event in SOCKET_EVENTS else 0]!r} without the marker `{marker}`"
            self._seen.append(what)
            raise Unmarked(f"{self._test}: {what}")

    def _end(self) -> None:
        """Look no further, and leave the environment as it was."""
        self._test = ""
        self._patch.undo()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Know which test it is that does something, from its fixtures to their end."""
        marks = {mark.name for mark in item.iter_markers()}
        self._allowed = frozenset().union(*(ALLOWS[mark] for mark in marks & ALLOWS.keys()))
        self._test = item.nodeid
        if "docker" not in self._allowed:
            self._patch.setenv("DOCKER_HOST", f"unix://{self._place.name}/docker.sock")
        try:
            return (yield)
        finally:
            self._end()

    def _judge(self) -> None:
        """Fail this part of the test, also where the code under test has caught the exception."""
        seen, self._seen = self._seen, []
        if seen:
            raise Unmarked("\n".join(seen))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        """Judge the fixtures of a test."""
        try:
            return (yield)
        finally:
            self._judge()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Judge a test."""
        try:
            return (yield)
        finally:
            self._judge()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Judge how the fixtures of a test end.

        With the last test those of the session end, which may be others'. The guard ends just before them: the test's
        own fixtures may still put back an environment that they found while it was there.
        """
        if nextitem is None:
            item.session.addfinalizer(self._end)
        try:
            return (yield)
        finally:
            self._judge()
