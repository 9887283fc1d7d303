"""The engine's API over its Unix socket: the requests of every `up` and `down`, under the SDK's names.

Importing the SDK takes 0.2 s, more than these commands do besides waiting for the engine. This module also streams
images: the SDK streams one image at a time, so that shared layers are sent several times. Docker Engine API v1.41:
“Containers”, “Networks”, “Volumes”, “Exec”, “Images”.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mailstack.engine.streams import shut
from mailstack.engine.unix_connection import Refused, Silent, http, response
from mailstack.engine.unix_images import UnixImages

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse


Filters = Mapping[str, Sequence[str]]


class OutputStream:
    """A container's output, piece by piece, until it stops."""

    def __init__(self, connection: HTTPConnection, sock: socket.socket, answer: HTTPResponse) -> None:
        self._connection, self._sock, self._answer = connection, sock, answer

    def __iter__(self) -> Iterator[bytes]:
        # Docker Engine API, “Attach to a container”, stream format.
        with contextlib.suppress(Silent), http():
            while len(head := self._answer.read(8)) == 8:
                yield self._answer.read(int.from_bytes(head[4:], "big"))

    def end(self) -> None:
        """Shut the connection down from another thread: the reading thread then reaches the end, and closes it."""
        shut(self._sock)

    def close(self) -> None:
        """Close the connection."""
        self.end()
        self._connection.close()


class UnixApi(UnixImages):
    """An engine at a Unix socket; each request has its own connection. Raises Refused, Silent."""

    def version(self, *, api_version: bool) -> dict[str, Any]:
        """Return the engine's version. The request names no version of the API, so that every engine answers."""
        assert not api_version
        return dict(self._ask("GET", "/version"))

    def info(self) -> dict[str, Any]:
        """Return the engine's description of its host."""
        return dict(self._ask("GET", "/info"))

    def containers(self, *, all: bool, filters: Filters) -> list[dict[str, Any]]:
        """Return the containers that match the filters; without `all`, only those that run."""
        return list(self._ask("GET", f"/containers/json?all={all:d}&{_query(filters)}"))

    def networks(self, filters: Filters | None = None) -> list[dict[str, Any]]:
        """Return the networks that match the filters."""
        return list(self._ask("GET", f"/networks?{_query(filters or {})}"))

    def volumes(self, *, filters: Filters) -> dict[str, Any]:
        """Return the volumes that match the filters, under `Volumes`."""
        return dict(self._ask("GET", f"/volumes?{_query(filters)}"))

    def create_volume(self, name: str, *, labels: Mapping[str, str]) -> dict[str, Any]:
        """Create a volume unless one of this name exists. Return its description."""
        return dict(self._ask("POST", "/volumes/create", {"Name": name, "Labels": dict(labels)}))

    def inspect_container(self, container: str) -> dict[str, Any]:
        """Return the engine's description of a container."""
        return dict(self._ask("GET", f"/containers/{quote(container)}/json"))

    def logs(self, container: str, *, stream: bool, follow: bool, since: float) -> OutputStream:
        """Stream the container's output since `since`, in seconds of the epoch. Only the stream is implemented."""
        assert stream
        assert follow
        connection = self._connect()
        sock = connection.sock
        sock.settimeout(None)  # the container may print nothing for any length of time
        try:
            with http():
                path = f"/containers/{quote(container)}/logs?stdout=1&stderr=1&follow=1&since={since:.6f}"
                self._send(connection, "GET", path, None)
                answer = response(connection)
        except BaseException:
            connection.close()
            raise
        return OutputStream(connection, sock, answer)

    def exec_create(
        self, container: str, cmd: Sequence[str], *, user: str = "", stdin: bool = False, stderr: bool = True
    ) -> dict[str, Any]:
        """Create an exec instance: a program to start in a container."""
        settings = {"Cmd": list(cmd), "User": user, "AttachStdin": stdin, "AttachStdout": True, "AttachStderr": stderr}
        return dict(self._ask("POST", f"/containers/{quote(container)}/exec", settings))

    def exec_start(self, exec_id: str, *, socket: bool) -> socket.socket:
        """Start an exec instance. Return the connection with its input and output; only the socket is implemented."""
        assert socket
        connection = self._connect()
        try:
            with http():
                headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
                self._send(connection, "POST", f"/exec/{exec_id}/start", {"Detach": False, "Tty": False}, headers)
                stream = connection.sock
                _expect_upgrade(stream)
        except BaseException:
            connection.close()
            raise
        return stream

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        """Return the engine's description of an exec instance."""
        return dict(self._ask("GET", f"/exec/{exec_id}/json"))


def _expect_upgrade(stream: socket.socket) -> None:
    """Read the head of a response byte by byte: `getresponse` would also read the program's bytes after it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte:
            raise ConnectionResetError("the engine has closed the connection")
        head += byte
    words = head.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        raise Silent(head.decode(errors="replace").strip())
    if (status := int(words[1])) not in (101, 200):
        raise Refused(status, head.decode(errors="replace").splitlines()[0])


def _query(filters: Filters) -> str:
    return f"filters={quote(json.dumps({name: list(values) for name, values in filters.items()}))}"
