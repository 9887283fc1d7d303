"""Images over an engine's Unix socket, also as streams, which the SDK gives one image at a time only."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any
from urllib.parse import quote, urlencode

from mailstack.engine.unix_connection import Refused, Silent, UnixConnection, found, http, read

# An engine unpacks images when it has all of them, and says nothing meanwhile.
LOAD_SECONDS = 900.0
_PIECE = 1 << 20


class UnixImages(UnixConnection):
    """The images of an engine, under the SDK's names for the questions."""

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
        with contextlib.closing(self._connect()) as connection, http():
            connection.sock.settimeout(LOAD_SECONDS)
            headers = {"Content-Type": "application/x-tar"}
            connection.request("POST", f"/images/create?{urlencode(asked, doseq=True)}", body, headers)
            answer = connection.getresponse()
            if answer.status >= 300:
                found(answer)
            for line in answer:
                if line.strip():
                    yield read(line)

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        """Images as one archive, piece by piece; a layer that several have is in it once."""
        with contextlib.closing(self._connect()) as connection, http():
            self._send(connection, "GET", f"/images/get?{urlencode({'names': names}, doseq=True)}", None)
            answer = connection.getresponse()
            if answer.status >= 300:
                found(answer)
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
        with contextlib.closing(self._connect()) as connection, http():
            connection.sock.settimeout(LOAD_SECONDS)
            headers = {"Content-Type": "application/x-tar"}
            # Where it refuses, it may do so before it has read all: what it says then is what counts.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", "/images/load?quiet=1", archive, headers, encode_chunked=True)
            if archive.error:
                raise archive.error
            answer = connection.getresponse()
            if answer.status >= 300:
                found(answer)
            for line in answer.read().splitlines():
                if line.strip() and (error := read(line).get("error")):
                    raise Refused(answer.status, str(error))


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
