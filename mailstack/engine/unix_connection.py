"""Connections to an engine's API over its Unix socket, one for each request (Docker Engine API v1.41)."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

ANSWER_SECONDS = 60.0


class Refused(Exception):
    """The engine replied with an error, or with something unexpected."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Silent(Exception):
    """Nothing listens on the socket, or the listener is no engine; `__cause__` is the reason."""


class UnixConnection:
    """An engine at a Unix socket; each request has its own connection. Raises Refused, Silent."""

    def __init__(self, path: str) -> None:
        self._path = path

    def _connect(self) -> HTTPConnection:
        from http.client import HTTPConnection  # `up` sends its first request while it waits for Compose

        connection = HTTPConnection("localhost", timeout=ANSWER_SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(ANSWER_SECONDS)
        try:
            connection.sock.connect(self._path)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            connection.close()
            raise Silent(str(error)) from error
        return connection

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        with contextlib.closing(self._connect()) as connection, http():
            self._send(connection, method, path, body)
            return document_of(connection.getresponse())

    @staticmethod
    def _send(
        connection: HTTPConnection,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})


@contextlib.contextmanager
def http() -> Iterator[None]:
    """Raise Silent for the errors of a connection."""
    from http.client import HTTPException

    try:
        yield
    except (HTTPException, OSError) as error:
        raise Silent(str(error)) from error


def response(connection: HTTPConnection) -> HTTPResponse:
    """Return the response to a request. Raises Refused, Silent."""
    answer = connection.getresponse()
    if answer.status >= 300:
        document_of(answer)
    return answer


def document_of(answer: HTTPResponse) -> Any:
    """Return the document of a response. Raises Refused, Silent."""
    document = parse_json(answer.read())
    if answer.status >= 300:
        raise Refused(
            answer.status, str(document.get("message", answer.status) if isinstance(document, dict) else document)
        )
    return document


def parse_json(text: bytes) -> Any:
    """Parse a JSON document. Raises Silent."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Silent(str(error)) from error
