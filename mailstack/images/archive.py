"""Images in a file, for machines without a network: a compressed archive as made by `docker save`.

A file is written completely or not at all. It is read to its end before the engine gets any of it.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import os
import secrets
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import Any

from mailstack.definition import bundled
from mailstack.engine.engine import Engine
from mailstack.errors import EngineError, HostError, InputError
from mailstack.images import build, transfer
from mailstack.model import Json, Progress
from mailstack.text import hint

_MIB = 1 << 20
_PIECE = 1 << 20
_PERCENT = 10
# Limits in bytes of the documents that are read (manifest and image configurations): each, and in total.
_DOCUMENT_BYTES, _DOCUMENTS_BYTES = 1 << 18, 1 << 24
_UNREADABLE = (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive."""

    names: tuple[str, ...]
    processor: str  # GOARCH: amd64, arm64


def save(engine: Engine, path: Path, progress: Progress, *, replace: bool = False) -> Json:
    """Write the images of this version to a file. Raises InputError, HostError.

    A failure leaves nothing behind, and an existing file stays as it was.
    """
    tag = build.content_tag(bundled.stack())
    names = bundled.images(tag)
    if missing := [name for name in names.values() if not engine.has_image(name)]:
        raise HostError(
            f"the Docker engine {engine.target.where} does not have {', '.join(missing)}",
            remedy=f"build them: {engine.target.line('up')}, and then {engine.target.line('down')}",
        )
    size = build.unique_bytes(engine, list(names.values()))
    archive = transfer.compressed(_with_progress(engine.save(list(names.values())), size, progress, "saving"))
    written = _write(path, archive, replace=replace)
    return _answer(engine, path, written, tag)


def load(engine: Engine, path: Path, progress: Progress) -> Json:
    """Load the images of a file into the engine, if they are those of this version. Raises InputError, HostError."""
    tag = build.content_tag(bundled.stack())
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        progress("reading the archive")
        _check_images(path, contents(path, file), tag, engine)
        file.seek(0)
        engine.load(_with_progress(iter(lambda: file.read(_PIECE), b""), size, progress, "loading"))
    if missing := [name for name in bundled.images(tag).values() if not engine.has_image(name)]:
        where = engine.target.where
        raise EngineError(f"the Docker engine {where} took {path}, and does not have {', '.join(missing)}")
    return _answer(engine, path, size, tag)


def contents(path: Path, file: BufferedReader) -> list[ArchivedImage]:
    """Read an archive to its end and return its images. Raises InputError when it is incomplete."""
    try:
        compressed = file.peek(2)[:2] == b"\x1f\x8b"  # RFC 1952
        with gzip.GzipFile(fileobj=file) if compressed else contextlib.nullcontext(file) as stream:
            names, documents = _members(stream)
            while stream.read(_PIECE):  # the padding of tar(5), and the checksum at the end of gzip
                pass
        return [_archived_image(each, names, documents) for each in json.loads(documents["manifest.json"])]
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: is not an image archive, or is incomplete", remedy=_REMEDY) from None
    except (*_UNREADABLE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        raise InputError(f"{path}: is not an image archive, or is incomplete: {error}", remedy=_REMEDY) from None


def _members(stream: BufferedIOBase) -> tuple[set[str], dict[str, bytes]]:
    """Return the names of an archive's members, and the contents of the small ones."""
    names, documents, room = set(), {}, _DOCUMENTS_BYTES
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            names.add(member.name)
            small = member.isfile() and member.size <= min(_DOCUMENT_BYTES, room)
            if small and (data := archive.extractfile(member)):
                documents[member.name] = data.read()
                room -= member.size
    return names, documents


_REMEDY = f"make it with `{hint.line('images', 'save', 'FILE')}`, and copy it unchanged"


def _archived_image(entry: Any, names: set[str], documents: dict[str, bytes]) -> ArchivedImage:
    """Return the image of one manifest entry. Raises KeyError when a layer that the entry names is missing."""
    if missing := set(entry["Layers"]) - names:
        raise KeyError(*missing)
    config = json.loads(documents[entry["Config"]])
    return ArchivedImage(tuple(map(str, entry["RepoTags"] or ())), str(config.get("architecture", "")))


def _check_images(path: Path, images: list[ArchivedImage], tag: str, engine: Engine) -> None:
    """Raise InputError when a file lacks images of this version, or has them for another architecture."""
    processors = {name: image.processor for image in images for name in image.names}
    expected = bundled.images(tag).values()
    if missing := [name for name in expected if name not in processors]:
        has = ", ".join(sorted(processors)) or "images without names"
        raise InputError(
            f"{path}: does not have {', '.join(missing)}, which this version of mailstack needs, but {has}",
            remedy=f"save them with the version that will use them: `{hint.line('images', 'save', 'FILE')}`",
        )
    processor = engine.platform()
    if other := {processors[name] for name in expected} - {processor}:
        where = engine.target.where
        raise InputError(
            f"{path}: its images are for {', '.join(sorted(other))}; the engine {where} runs those for {processor}",
            remedy=f"save them on a machine with such a processor: `{hint.line('images', 'save', 'FILE')}`",
        )


def _answer(engine: Engine, path: Path, size: int, tag: str) -> Json:
    ids = {service: engine.image_id(name) for service, name in bundled.images(tag).items()}
    return {"file": str(path), "bytes": size, "tag": tag, "images": ids}


def _with_progress(pieces: Iterable[bytes], size: int, progress: Progress, doing: str) -> Iterator[bytes]:
    """Yield the pieces, and report the progress at each tenth."""
    done = shown = 0
    progress(f"{doing} the images: about {size // _MIB} MiB")
    for piece in pieces:
        yield piece
        done += len(piece)
        if (percent := 100 * done // max(size, 1)) >= shown + _PERCENT:
            shown = percent
            progress(f"{doing} the images: {done // _MIB} of about {size // _MIB} MiB")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        # Opening a FIFO would block until a writer appears.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: is not a regular file")
    with open(descriptor, "rb") as file:
        yield file


def _write(path: Path, pieces: Iterable[bytes], *, replace: bool) -> int:
    """Write a file by a temporary file beside it. Return its size in bytes. Raises InputError, HostError."""
    _refuse_existing(path, replace=replace)
    temporary = path.parent / f".{path.name[:100]}.{secrets.token_hex(4)}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        _refuse_existing(path, replace=replace)  # another process may have created it meanwhile
        temporary.replace(path)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}:
            raise HostError(f"{path}: cannot be written: {error.strerror}", remedy="free some space there") from None
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
    return size


def _refuse_existing(path: Path, *, replace: bool) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: exists, and is not a regular file")
    if not replace:
        raise InputError(f"{path}: is there already", remedy="--force replaces it")
