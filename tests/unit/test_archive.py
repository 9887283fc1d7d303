"""Images in a file: reading an archive, refusing one, and writing a file completely or not at all."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

from mailstack.definition import bundled
from mailstack.errors import EngineError, HostError, InputError
from mailstack.images import archive, build
from tests.unit.fake_images import FakeEngine

TAG = build.content_tag(bundled.stack())
NAMES = tuple(bundled.images(TAG).values())


NO_LAYER = b'[{"Config": "c.json", "RepoTags": [], "Layers": ["missing"]}]'


def silent(_: str) -> None:
    """Ignore progress messages."""


def packed(
    names: Iterable[str] = NAMES, processor: str = "amd64", more: Mapping[str, bytes] = MappingProxyType({})
) -> bytes:
    """Return an archive as an engine makes it, without compression; `more` replaces members."""
    entries = [{"Config": "c.json", "RepoTags": [name], "Layers": ["l/layer.tar"]} for name in names]
    members = {
        "l/layer.tar": os.urandom(50_000),
        "c.json": json.dumps({"architecture": processor}).encode(),
        "manifest.json": json.dumps(entries).encode(),
        **more,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Archiving(FakeEngine):
    """An engine that returns an archive, and loads any archive without a check."""

    def save(self, references: Sequence[str]) -> Iterator[bytes]:
        yield packed(references)

    def load(self, archive: Iterable[bytes]) -> None:
        self.loaded = b"".join(archive)
        self.held |= set(NAMES)

    def image_id(self, reference: str) -> str:
        return f"sha256:{reference}" if reference in self.held else ""


@pytest.mark.parametrize("whole", [gzip.compress(packed()), packed()], ids=["compressed", "as it is"])
def test_an_archive_with_the_images_of_this_version_is_loaded_as_it_is(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "file").write_bytes(whole)
    engine = Archiving()
    found = archive.load(engine, tmp_path / "file", silent)
    assert engine.loaded == whole
    assert (found["tag"], found["bytes"]) == (TAG, len(whole))
    assert found["images"]["sender"] == f"sha256:mailstack/sender:{TAG}"


def test_half_an_archive_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for whole in (gzip.compress(packed()), packed()[: -tarfile.RECORDSIZE]):
        # Of one without compression, which ends in blocks of nothing, those may be missing.
        for end in (0, 1, 5, 700, len(whole) // 2, len(whole) - 9000, len(whole) - 4000, len(whole) - 1):
            path.write_bytes(whole[:end])
            engine = Archiving()
            with pytest.raises(InputError, match="is not an image archive, or is incomplete"):
                archive.load(engine, path, silent)
            assert not engine.held


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(b"hello\n" * 1000, id="text"),
        pytest.param(gzip.compress(b"hello\n" * 1000), id="compressed text"),
        pytest.param(packed(more={"manifest.json": b"{"}), id="no JSON"),
        pytest.param(packed(more={"manifest.json": b"[1]"}), id="another JSON"),
        pytest.param(packed(more={"manifest.json": b"[" * 200_000}), id="deep JSON"),
        pytest.param(packed(more={"c.json": b"[]"}), id="no configuration"),
        pytest.param(gzip.compress(packed())[:-8] + bytes(8), id="another checksum"),
        pytest.param(
            packed(more={"manifest.json": b'[{"Config": "c.json", "RepoTags": [], "Layers": ["x"]}]'}), id="layer"
        ),
    ],
)
def test_what_is_no_archive_of_images_is_refused(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "file").write_bytes(damaged)
    with pytest.raises(InputError, match="is not an image archive") as caught:
        archive.load(Archiving(), tmp_path / "file", silent)
    assert "images save" in caught.value.remedy


def test_images_of_another_version_are_refused_and_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(packed(["mailstack/postfix:0123456789ab"]))
    with pytest.raises(InputError, match=f"mailstack/sender:{TAG}.*, but mailstack/postfix:0123456789ab"):
        archive.load(Archiving(), tmp_path / "file", silent)


def test_images_for_another_processor_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(packed(processor="riscv64"))
    with pytest.raises(InputError, match=r"are for riscv64; the engine .* runs those for amd64"):
        archive.load(Archiving(), tmp_path / "file", silent)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, said in (
        (tmp_path, "is not a regular file"),
        (tmp_path / "fifo", "is not a regular file"),
        (tmp_path / "no", "No such"),
    ):
        with pytest.raises(InputError, match=said):
            archive.load(Archiving(), path, silent)


# ── saving ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_saved_can_be_loaded_and_nothing_else_is_in_the_folder(tmp_path: Path) -> None:
    found = archive.save(Archiving(*NAMES), tmp_path / "file", silent)
    assert found["bytes"] == (tmp_path / "file").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert archive.load(Archiving(), tmp_path / "file", silent)["images"] == found["images"]


def test_a_file_that_is_there_is_replaced_only_where_that_was_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        archive.save(Archiving(*NAMES), path, silent)
    assert path.read_text() == "mine"
    archive.save(Archiving(*NAMES), path, silent, replace=True)
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    with pytest.raises(InputError, match="is not a regular file"):
        archive.save(Archiving(*NAMES), tmp_path, silent, replace=True)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), EngineError("gone")])
def test_a_save_that_fails_leaves_nothing_and_what_was_there(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: FakeEngine, references: Sequence[str]) -> Iterator[bytes]:
        yield b"half"
        raise error

    monkeypatch.setattr(Archiving, "save", fails)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HostError):
        archive.save(Archiving(*NAMES), tmp_path / "file", silent, replace=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_images_that_are_missing_are_named_with_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=f"does not have mailstack/dovecot:{TAG}$") as caught:
        archive.save(Archiving(*(name for name in NAMES if "dovecot" not in name)), tmp_path / "file", silent)
    assert "mailstack up" in caught.value.remedy


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        archive.save(Archiving(*NAMES), tmp_path / "no" / "file", silent)
