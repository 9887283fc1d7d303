"""The images of an engine."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mailstack.engine import layers
from mailstack.engine.client import Client, errors, gone, mapped
from mailstack.engine.unix_api import Refused, Silent, UnixApi
from mailstack.errors import EngineError
from mailstack.target.target import Target

_PIECE = 1 << 20  # bytes


class Images(Client):
    """The questions about images, and what brings them there."""

    def has_image(self, reference: str) -> bool:
        """Whether the engine holds this image."""
        return bool(self.image_id(reference))

    def image_id(self, reference: str) -> str:
        """The digest by which the engine knows an image; "" when it does not hold it."""
        return str(self._image(reference).get("Id", ""))

    def image_base(self, reference: str) -> str:
        """The digest of an image's lowest layer, which is its base's; "" when the engine does not hold it."""
        return str(next(iter(self._image(reference).get("RootFS", {}).get("Layers") or []), ""))

    def image_platform(self, reference: str) -> str:
        """The processor that an image is for, in Go's words (amd64, arm64); "" when the engine does not hold it."""
        return str(self._image(reference).get("Architecture", ""))

    @mapped
    def _image(self, reference: str) -> dict[str, Any]:
        with gone():
            return dict(self._quick.inspect_image(reference))
        return {}

    @mapped
    def pull(self, reference: str) -> None:
        """Pull an image from its registry. Raises EngineError when that is not possible."""
        # Only the SDK knows the user's registries; `mailstack.host.prepare` runs where it is not installed.
        api = self._api if importlib.util.find_spec("docker") else self._quick
        repository, _, tag = reference.partition(":")
        for line in api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if "error" in line:
                raise EngineError(f"{reference}: {line['error']}")

    @mapped
    def import_image(self, tarball: Path, reference: str) -> None:
        """Make an image of one layer from a root file system's tar archive."""
        repository, _, tag = reference.partition(":")
        answer = self._quick.import_image_from_file(
            str(tarball), repository=repository, tag=tag or "latest", changes=['CMD ["bash"]']
        )
        if '"error"' in str(answer):
            raise EngineError(f"{reference}: the engine did not take the image: {answer}")

    @mapped
    def image_layers(self, reference: str) -> list[tuple[str, int]]:
        """The layers of an image, lowest first, as (identity, bytes)."""
        digests = self._quick.inspect_image(reference)["RootFS"]["Layers"]
        sizes = layers.sizes(list(reversed(self._quick.history(reference))), len(digests))
        return [("/".join(digests[: n + 1]), size) for n, size in enumerate(sizes)]

    @mapped
    def image_files(self, reference: str, paths: Sequence[str], labels: Mapping[str, str]) -> list[bytes]:
        """The contents of files of an image. A container with `labels` is made for that, never started, and removed."""
        made = self._api.create_container(reference, ["true"], labels=dict(labels))["Id"]
        try:
            return [_file(self._api, made, path) for path in paths]
        finally:
            self._api.remove_container(made, force=True, v=True)

    @mapped
    def platform(self) -> str:
        """The processor that its containers are for, in Go's words: amd64, arm64."""
        return str(self._quick.version(api_version=False)["Arch"])

    def save(self, references: Sequence[str]) -> Iterator[bytes]:
        """Images as one archive, piece by piece. Raises EngineError."""
        api = self._quick
        try:
            yield from api.save(references) if isinstance(api, UnixApi) else _saved(self.target, api, references)
        except (Refused, Silent) as error:
            raise EngineError(f"the Docker engine {self.target.where} does not give the images: {error}") from None

    def load(self, archive: Iterable[bytes]) -> None:
        """Take the images of an archive, which may be compressed. Raises HostError."""
        api = self._quick
        try:
            api.load(archive) if isinstance(api, UnixApi) else _loaded(self.target, api, archive)
        except (Refused, Silent) as error:
            self.target.look()  # raises what is to be said when the host has gone
            raise EngineError(
                f"the Docker engine {self.target.where} does not take the images: {error}",
                remedy=f"`{self.target.line('doctor')}` says how much room its disk has",
            ) from None


def _file(api: Any, container: str, path: str) -> bytes:
    import tarfile

    pieces, _ = api.get_archive(container, path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        return file.read() if file else b""


def _saved(target: Target, api: Any, references: Sequence[str]) -> Iterator[bytes]:
    """Images as one archive, by the SDK, whose own method takes one image only. Raises Silent."""
    with (
        _by_sdk(target),
        api.get(api._url("/images/get"), params={"names": list(references)}, stream=True) as answer,
    ):
        api._raise_for_status(answer)
        yield from answer.iter_content(_PIECE)


def _loaded(target: Target, api: Any, archive: Iterable[bytes]) -> None:
    """Have an engine take the images of an archive, by the SDK. Raises Refused, Silent."""
    with _by_sdk(target):
        for line in api.load_image(archive):
            if "error" in line:
                raise Refused(200, str(line["error"]))


@contextlib.contextmanager
def _by_sdk(target: Target) -> Iterator[None]:
    """Raise Silent for what the SDK raises of the engine's."""
    try:
        yield
    except Exception as error:
        if isinstance(error, Refused) or errors(target).of(error) is None:
            raise
        raise Silent(str(error)) from error
