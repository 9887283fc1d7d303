"""An engine that has only images, and a host on which a base image can be built."""

from __future__ import annotations

import gzip
import platform
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mailstack.engine.engine import Engine
from mailstack.errors import EngineError
from mailstack.images import base
from mailstack.model import Command, Result
from mailstack.target.target import LocalTarget


class FakeEngine(Engine):
    """An engine with the given images, which can pull those of its registry."""

    def __init__(self, *held: str, registry: tuple[str, ...] = ()) -> None:
        super().__init__(LocalTarget("unix:///nowhere"))
        self.held = set(held)
        self.registry = registry
        self.imported: dict[str, list[str]] = {}
        self.processor = "amd64"

    def info(self) -> dict[str, Any]:
        return {"Architecture": platform.machine()}

    def platform(self) -> str:
        return self.processor

    def image_platform(self, reference: str) -> str:
        return self.processor if self.has_image(reference) else ""

    def image_layers(self, reference: str) -> list[tuple[str, int]]:
        return [(reference, 1 << 20)]

    def save(self, references: Sequence[str]) -> Iterator[bytes]:
        for reference in references:
            yield f"{reference}\n".encode()

    def load(self, archive: Iterable[bytes]) -> None:
        self.held |= set(gzip.decompress(b"".join(archive)).decode().split())

    def has_image(self, reference: str) -> bool:
        return reference in self.held

    def pull(self, reference: str) -> None:
        if reference not in self.registry:
            raise EngineError("no registry answers")
        self.held.add(reference)

    def import_image(self, tarball: Path, reference: str) -> None:
        with tarfile.open(tarball) as archive:
            self.imported[reference] = archive.getnames()
        self.held.add(reference)


def bootstraps(command: Command) -> Result:
    """Fake mmdebstrap: write an archive to the given path."""
    with tarfile.open(command.argv[-1], "w") as archive:
        archive.addfile(tarfile.TarInfo("./etc"))
    return Result(0, "", "I: done")


@pytest.fixture
def debian_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a host with mmdebstrap and Debian's keys."""
    program = tmp_path / "mmdebstrap"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(base, "_keyring", lambda tree: tree / "key.gpg")
    return tmp_path
