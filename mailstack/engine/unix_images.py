"""Images over an engine's Unix socket, also as streams, which the SDK gives one image at a time only."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any
from urllib.parse import quote, urlencode

from mailstack.engine.unix_connection import Refused, Silent, UnixConnection, http, parse_json, response

# Timeout of a load, in seconds. An engine unpacks images when it has received all of them, and is silent meanwhile.
LOAD_SECONDS = 900.0
_PIECE = 1 << 20


class UnixImages(UnixConnection):
    """Requests for the images of an engine, under the SDK's names."""

    def inspect_image(self, image: str) -> dict[str, Any]:
        """Return the engine's description of an image."""
        return dict(self._ask("GET", f"/images/{quote(image)}/json"))

    def history(self, image: str) -> list[dict[str, Any]]:
        """Return how an image was built, the latest instruction first."""
        return list(self._ask("GET", f"/images/{quote(image)}/history"))

    def pull(self, repository: str, *, tag: str, stream: bool, decode: bool) -> Iterator[dict[str, Any]]:
        """Pull an image without a login to its registry. Yield the engine's progress; there is only the stream."""
        assert stream
        assert decode
        yield from self._create_image({"fromImage": repository, "tag": tag})

    def import_image_from_file(self, filename: str, *, repository: str, tag: str, changes: Sequence[str]) -> str:
        """Create an image from the archive of a root file system. Return the engine's reply."""
        query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": changes}
        with open(filename, "rb") as file:
            return "\n".join(map(json.dumps, self._create_image(query, file)))

    def _create_image(self, query: Mapping[str, Any], body: IO[bytes] | None = None) -> Iterator[dict[str, Any]]:
        with contextlib.closing(self._connect()) as connection, http():
            connection.sock.settimeout(LOAD_SECONDS)
            headers = {"Content-Type": "application/x-tar"}
            connection.request("POST", f"/images/create?{urlencode(query, doseq=True)}", body, headers)
            for line in response(connection):
                if line.strip():
                    yield parse_json(line)

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        """Yield an archive of images piece by piece; a layer that several images share is in it once."""
        with contextlib.closing(self._connect()) as connection, http():
            self._send(connection, "GET", f"/images/get?{urlencode({'names': names}, doseq=True)}", None)
            answer = response(connection)
            while piece := answer.read(_PIECE):
                yield piece

    def load(self, archive: Iterable[bytes]) -> None:
        """Load the images of an archive, which may be compressed. Raises what iterating over the archive raises."""
        source = _Archive(archive)
        try:
            self._load(source)
        except Silent:
            if source.error:  # raise the caller's own error unchanged
                raise source.error from None
            raise

    def _load(self, archive: _Archive) -> None:
        with contextlib.closing(self._connect()) as connection, http():
            connection.sock.settimeout(LOAD_SECONDS)
            headers = {"Content-Type": "application/x-tar"}
            # An engine that refuses may do so before it has read everything; its reply matters then.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", "/images/load?quiet=1", archive, headers, encode_chunked=True)
            if archive.error:
                raise archive.error
            answer = response(connection)
            for line in answer.read().splitlines():
                if line.strip() and (error := parse_json(line).get("error")):
                    raise Refused(answer.status, str(error))


class _Archive:
    """The caller's data, piece by piece. It keeps an error of the caller, which is not the engine's."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._pieces
        except Exception as error:
            self.error = error
            raise
