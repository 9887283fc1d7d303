"""The engine's API over its Unix socket: the questions that every `up` and `down` asks, under the SDK's names for them.

The SDK takes a fifth of a second to import, which is more than all that these commands do besides waiting for the
engine. And images as streams, which the SDK gives one by one only, so that layers that they share come several times.
Docker Engine API v1.41: “Containers”, “Networks”, “Volumes”, “Exec”, “Images”.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from mailstack.engine.streams import shut

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

ANSWER_SECONDS = 60.0
# An engine unpacks images when it has all of them, and says nothing meanwhile.
LOAD_SECONDS = 900.0
_PIECE = 1 << 20

Filters = Mapping[str, Sequence[str]]


class Refused(Exception):
    """The engine's answer was another than it should be."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Silent(Exception):
    """Nobody answers at the socket, or what answers is no engine; `__cause__` is why."""


class Printed:
    """What a container prints, piece by piece, until it stops."""

    def __init__(self, connection: HTTPConnection, sock: socket.socket, answer: HTTPResponse) -> None:
        self._connection, self._sock, self._answer = connection, sock, answer

    def __iter__(self) -> Iterator[bytes]:
        # Docker Engine API, “Attach to a container”, stream format.
        with contextlib.suppress(Silent), _http():
            while len(head := self._answer.read(8)) == 8:
                yield self._answer.read(int.from_bytes(head[4:], "big"))

    def end(self) -> None:
        """Nothing more is to come: for another thread than the one that reads, which comes to the end, and closes."""
        shut(self._sock)

    def close(self) -> None:
        """End the connection."""
        self.end()
        self._connection.close()


class UnixApi:
    """An engine at a Unix socket; a connection for each question. Raises Refused, Silent."""

    def __init__(self, path: str) -> None:
        self._path = path

    def version(self, *, api_version: bool) -> dict[str, Any]:
        """The engine's version; asked in no version of the API, so that every engine answers."""
        assert not api_version
        return dict(self._ask("GET", "/version"))

    def info(self) -> dict[str, Any]:
        """The engine's description of its host."""
        return dict(self._ask("GET", "/info"))

    def containers(self, *, all: bool, filters: Filters) -> list[dict[str, Any]]:
        """The containers that fit; without `all`, only those that run."""
        return list(self._ask("GET", f"/containers/json?all={all:d}&{_query(filters)}"))

    def networks(self, filters: Filters | None = None) -> list[dict[str, Any]]:
        """The networks that fit."""
        return list(self._ask("GET", f"/networks?{_query(filters or {})}"))

    def volumes(self, *, filters: Filters) -> dict[str, Any]:
        """The volumes that fit, under `Volumes`."""
        return dict(self._ask("GET", f"/volumes?{_query(filters)}"))

    def create_volume(self, name: str, *, labels: Mapping[str, str]) -> dict[str, Any]:
        """Make a volume, unless there is one of this name; either way, all about it."""
        return dict(self._ask("POST", "/volumes/create", {"Name": name, "Labels": dict(labels)}))

    def inspect_container(self, container: str) -> dict[str, Any]:
        """All about a container."""
        return dict(self._ask("GET", f"/containers/{quote(container)}/json"))

    def logs(self, container: str, *, stream: bool, follow: bool, since: float) -> Printed:
        """What the container prints, and has since `since`, in seconds of the epoch. There is only the stream."""
        assert stream
        assert follow
        connection = self._connect()
        sock = connection.sock
        sock.settimeout(None)  # it may print nothing for as long as it likes
        try:
            with _http():
                asked = f"/containers/{quote(container)}/logs?stdout=1&stderr=1&follow=1&since={since:.6f}"
                self._send(connection, "GET", asked, None)
                answer = connection.getresponse()
            if answer.status >= 300:
                _found(answer)
        except BaseException:
            connection.close()
            raise
        return Printed(connection, sock, answer)

    def exec_create(
        self, container: str, cmd: Sequence[str], *, user: str = "", stdin: bool = False, stderr: bool = True
    ) -> dict[str, Any]:
        """Prepare a program in a container."""
        wanted = {"Cmd": list(cmd), "User": user, "AttachStdin": stdin, "AttachStdout": True, "AttachStderr": stderr}
        return dict(self._ask("POST", f"/containers/{quote(container)}/exec", wanted))

    def exec_start(self, exec_id: str, *, socket: bool) -> socket.socket:
        """Start what was prepared; the connection carries its input and output. There is no other way than a socket."""
        assert socket
        connection = self._connect()
        try:
            with _http():
                headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
                self._send(connection, "POST", f"/exec/{exec_id}/start", {"Detach": False, "Tty": False}, headers)
                stream = connection.sock
                _expect_upgrade(stream)
        except BaseException:
            connection.close()
            raise
        return stream

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        """What became of it."""
        return dict(self._ask("GET", f"/exec/{exec_id}/json"))

    def inspect_image(self, image: str) -> dict[str, Any]:
        """All about an image."""
        return dict(self._ask("GET", f"/images/{quote(image)}/json"))

    def history(self, image: str) -> list[dict[str, Any]]:
        """How an image was made, the latest instruction first."""
        return list(self._ask("GET", f"/images/{quote(image)}/history"))

    def pull(self, repository: str, *, tag: str, stream: bool, decode: bool) -> Iterator[dict[str, Any]]:
        """Pull an image, without logging in to its registry; what the engine says of that. There is only the stream."""
        assert stream
        assert decode
        yield from self._create_image({"fromImage": repository, "tag": tag})

    def import_image_from_file(self, filename: str, *, repository: str, tag: str, changes: Sequence[str]) -> str:
        """Make an image of a root file system's archive; what the engine says of that."""
        asked = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": changes}
        with open(filename, "rb") as file:
            return "\n".join(map(json.dumps, self._create_image(asked, file)))

    def _create_image(self, asked: Mapping[str, Any], body: IO[bytes] | None = None) -> Iterator[dict[str, Any]]:
        with contextlib.closing(self._connect()) as connection, _http():
            connection.sock.settimeout(LOAD_SECONDS)
            headers = {"Content-Type": "application/x-tar"}
            connection.request("POST", f"/images/create?{urlencode(asked, doseq=True)}", body, headers)
            answer = connection.getresponse()
            if answer.status >= 300:
                _found(answer)
            for line in answer:
                if line.strip():
                    yield _read(line)

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        """Images as one archive, piece by piece; a layer that several have is in it once."""
        with contextlib.closing(self._connect()) as connection, _http():
            self._send(connection, "GET", f"/images/get?{urlencode({'names': names}, doseq=True)}", None)
            answer = connection.getresponse()
            if answer.status >= 300:
                _found(answer)
            while piece := answer.read(_PIECE):
                yield piece

    def load(self, archive: Iterable[bytes]) -> None:
        """Take the images of an archive, which may be compressed; what iterating over it raises is raised."""
        given = _Given(archive)
        try:
            self._load(given)
        except Silent:
            if given.error:  # told as what it is
                raise given.error from None
            raise

    def _load(self, archive: _Given) -> None:
        with contextlib.closing(self._connect()) as connection, _http():
            connection.sock.settimeout(LOAD_SECONDS)
            headers = {"Content-Type": "application/x-tar"}
            # Where it refuses, it may do so before it has read all: what it says then is what counts.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", "/images/load?quiet=1", archive, headers, encode_chunked=True)
            if archive.error:
                raise archive.error
            answer = connection.getresponse()
            if answer.status >= 300:
                _found(answer)
            for line in answer.read().splitlines():
                if line.strip() and (error := _read(line).get("error")):
                    raise Refused(answer.status, str(error))

    def _connect(self) -> HTTPConnection:
        from http.client import HTTPConnection  # `up` asks its first question while it waits for Compose

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
        with contextlib.closing(self._connect()) as connection, _http():
            self._send(connection, method, path, body)
            return _found(connection.getresponse())

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


def _expect_upgrade(stream: socket.socket) -> None:
    """Read the head of an answer byte by byte: what follows belongs to the program, and `getresponse` would read it."""
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


@contextlib.contextmanager
def _http() -> Iterator[None]:
    from http.client import HTTPException

    try:
        yield
    except (HTTPException, OSError) as error:
        raise Silent(str(error)) from error


class _Given:
    """What a caller gives piece by piece; an error of the caller's own is kept, since it is none of the engine's."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._pieces
        except Exception as error:
            self.error = error
            raise


def _found(answer: HTTPResponse) -> Any:
    found = _read(answer.read())
    if answer.status >= 300:
        raise Refused(answer.status, str(found.get("message", answer.status) if isinstance(found, dict) else found))
    return found


def _read(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Silent(str(error)) from error


def _query(filters: Filters) -> str:
    return f"filters={quote(json.dumps({name: list(values) for name, values in filters.items()}))}"
