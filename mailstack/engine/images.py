"""The images of an engine."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mailstack.engine import layers
from mailstack.engine.client import Client, errors, ignore_missing, mapped
from mailstack.engine.unix_api import UnixApi
from mailstack.engine.unix_connection import Refused, Silent
from mailstack.errors import EngineError
from mailstack.target.target import Target

_PIECE = 1 << 20  # bytes


class Images(Client):
    """Operations on images: inspect, pull, import, save and load."""

    def has_image(self, reference: str) -> bool:
        """Return whether the engine has this image."""
        return bool(self.image_id(reference))

    def image_id(self, reference: str) -> str:
        """Return the engine's digest of an image, or "" when it does not have the image."""
        return str(self._image(reference).get("Id", ""))

    def image_base(self, reference: str) -> str:
        """Return the digest of an image's lowest layer (its base's), or "" when the engine does not have the image."""
        return str(next(iter(self._image(reference).get("RootFS", {}).get("Layers") or []), ""))

    def image_platform(self, reference: str) -> str:
        """Return an image's architecture as GOARCH (amd64, arm64), or "" when the engine does not have the image."""
        return str(self._image(reference).get("Architecture", ""))

    @mapped
    def _image(self, reference: str) -> dict[str, Any]:
        with ignore_missing():
            return dict(self._quick.inspect_image(reference))
        return {}

    @mapped
    def pull(self, reference: str) -> None:
        """Pull an image from its registry. Raises EngineError when that fails."""
        # Only the SDK knows the user's registry logins. `mailstack.host.prepare` runs before it is installed.
        api = self._api if importlib.util.find_spec("docker") else self._quick
        repository, _, tag = reference.partition(":")
        for line in api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if "error" in line:
                raise EngineError(f"{reference}: {line['error']}")

    @mapped
    def import_image(self, tarball: Path, reference: str) -> None:
        """Create an image of one layer from a tar archive of a root file system."""
        repository, _, tag = reference.partition(":")
        answer = self._quick.import_image_from_file(
            str(tarball), repository=repository, tag=tag or "latest", changes=['CMD ["bash"]']
        )
        if '"error"' in str(answer):
            raise EngineError(f"{reference}: the engine did not accept the image: {answer}")

    @mapped
    def image_layers(self, reference: str) -> list[tuple[str, int]]:
        """Return the layers of an image, lowest first, as (digest, bytes)."""
        digests = self._quick.inspect_image(reference)["RootFS"]["Layers"]
        sizes = layers.sizes(list(reversed(self._quick.history(reference))), len(digests))
        return [("/".join(digests[: n + 1]), size) for n, size in enumerate(sizes)]

    @mapped
    def image_files(self, reference: str, paths: Sequence[str], labels: Mapping[str, str]) -> list[bytes]:
        """Return the contents of files of an image, by a temporary container with `labels`, which is never started."""
        container = self._api.create_container(reference, ["true"], labels=dict(labels))["Id"]
        try:
            return [_file(self._api, container, path) for path in paths]
        finally:
            self._api.remove_container(container, force=True, v=True)

    @mapped
    def platform(self) -> str:
        """Return the architecture of the engine's containers as GOARCH (amd64, arm64)."""
        return str(self._quick.version(api_version=False)["Arch"])

    def save(self, references: Sequence[str]) -> Iterator[bytes]:
        """Yield an archive of images piece by piece. Raises EngineError."""
        api = self._quick
        try:
            yield from api.save(references) if isinstance(api, UnixApi) else _saved(self.target, api, references)
        except (Refused, Silent) as error:
            raise EngineError(f"the Docker engine {self.target.where} cannot export the images: {error}") from None

    def load(self, archive: Iterable[bytes]) -> None:
        """Load the images of an archive, which may be compressed. Raises HostError."""
        api = self._quick
        try:
            api.load(archive) if isinstance(api, UnixApi) else _loaded(self.target, api, archive)
        except (Refused, Silent) as error:
            self.target.look()  # raises the error for a host that is unreachable
            raise EngineError(
                f"the Docker engine {self.target.where} cannot load the images: {error}",
                remedy=f"`{self.target.line('doctor')}` shows how much space its disk has",
            ) from None


def _file(api: Any, container: str, path: str) -> bytes:
    import tarfile

    pieces, _ = api.get_archive(container, path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        return file.read() if file else b""


def _saved(target: Target, api: Any, references: Sequence[str]) -> Iterator[bytes]:
    """Yield an archive of images by the SDK, whose own method takes one image only. Raises Silent."""
    with (
        _by_sdk(target),
        api.get(api._url("/images/get"), params={"names": list(references)}, stream=True) as answer,
    ):
        api._raise_for_status(answer)
        yield from answer.iter_content(_PIECE)


def _loaded(target: Target, api: Any, archive: Iterable[bytes]) -> None:
    """Load the images of an archive by the SDK. Raises Refused, Silent."""
    with _by_sdk(target):
        for line in api.load_image(archive):
            if "error" in line:
                raise Refused(200, str(line["error"]))


@contextlib.contextmanager
def _by_sdk(target: Target) -> Iterator[None]:
    """Raise Silent for the SDK's errors of an engine that does not answer."""
    try:
        yield
    except Exception as error:
        if isinstance(error, Refused) or errors(target).of(error) is None:
            raise
        raise Silent(str(error)) from error
