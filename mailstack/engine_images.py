"""The images of an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mailstack import layers
from mailstack.engine_client import Client, mapped, sdk
from mailstack.errors import EngineError
from mailstack.unixapi import Refused, Silent


class Images(Client):
    """The questions about images, and what brings them there."""

    @mapped
    def has_image(self, reference: str) -> bool:
        """Whether the engine holds this image."""
        try:
            self._api.inspect_image(reference)
        except sdk().errors.NotFound:
            return False
        return True

    @mapped
    def image_id(self, reference: str) -> str:
        """The digest by which the engine knows an image; "" when it does not hold it."""
        try:
            return str(self._api.inspect_image(reference)["Id"])
        except sdk().errors.NotFound:
            return ""

    @mapped
    def pull(self, reference: str) -> None:
        """Pull an image from its registry. Raises EngineError when that is not possible."""
        repository, _, tag = reference.partition(":")
        for line in self._api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if "error" in line:
                raise EngineError(f"{reference}: {line['error']}")

    @mapped
    def import_image(self, tarball: Path, reference: str) -> None:
        """Make an image of one layer from a root file system's tar archive."""
        repository, _, tag = reference.partition(":")
        answer = self._api.import_image_from_file(
            str(tarball), repository=repository, tag=tag or "latest", changes=['CMD ["bash"]']
        )
        if '"error"' in str(answer):
            raise EngineError(f"{reference}: the engine did not take the image: {answer}")

    @mapped
    def image_layers(self, reference: str) -> list[tuple[str, int]]:
        """The layers of an image, lowest first, as (identity, bytes)."""
        digests = self._api.inspect_image(reference)["RootFS"]["Layers"]
        sizes = layers.sizes(list(reversed(self._api.history(reference))), len(digests))
        return [("/".join(digests[: n + 1]), size) for n, size in enumerate(sizes)]

    @mapped
    def platform(self) -> str:
        """The processor that its containers are for, in Go's words: amd64, arm64."""
        return str(self._api.version(api_version=False)["Arch"])

    @mapped
    def image_platform(self, reference: str) -> str:
        """The processor that an image is for, in the same words; "" when the engine does not hold it."""
        try:
            return str(self._api.inspect_image(reference)["Architecture"])
        except sdk().errors.NotFound:
            return ""

    def save(self, references: Sequence[str]) -> Iterator[bytes]:
        """Images as one archive, piece by piece; for an engine at a Unix socket. Raises EngineError."""
        try:
            yield from self._quick.save(references)
        except (Refused, Silent) as error:
            raise EngineError(f"the Docker engine {self.target.where} does not give the images: {error}") from None

    def load(self, archive: Iterable[bytes]) -> None:
        """Take the images of an archive, which may be compressed; at a Unix socket. Raises HostError."""
        try:
            self._quick.load(archive)
        except (Refused, Silent) as error:
            self.target.look()  # raises what is to be said when the host has gone
            raise EngineError(
                f"the Docker engine {self.target.where} does not take the images: {error}",
                remedy=f"`{self.target.line('doctor')}` says how much room its disk has",
            ) from None
