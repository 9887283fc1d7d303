"""Images from one engine to another: as one stream, which is compressed on the way and never on a disk here."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Sequence

from mailstack.engine.engine import Engine
from mailstack.errors import EngineError
from mailstack.model import Progress

_MIB = 1 << 20
# Progress is told when so much more has been sent, but not more often.
_PAUSE = 0.5  # seconds
_PERCENT = 2
# zlib(3): the fastest level makes a third of these images, faster than most lines take it; and gzip's form.
_LEVEL, _GZIP = 1, 31


def possible(source: Engine, target: Engine, references: Sequence[str]) -> bool:
    """Whether `source` answers, and has all these images for the kind of processor that `target` has."""
    try:
        wanted = target.platform()
        return all(source.image_platform(reference) == wanted for reference in references)
    except EngineError:
        return False


def send(source: Engine, target: Engine, references: Sequence[str], size: int, progress: Progress, where: str) -> None:
    """Have `target`, which is the engine of `where`, hold images of `source`, which are `size` bytes or so.

    Raises HostError when one of the two gives it up.
    """
    target.load(compressed(counted(source.save(references), size, progress, where)))


def counted(archive: Iterable[bytes], size: int, progress: Progress, where: str) -> Iterator[bytes]:
    """The archive, piece by piece, while it is told how much of it has gone."""
    sent, told, shown = 0, time.monotonic(), 0
    progress(f"sending the images to {where}: about {size // _MIB} MiB")
    for piece in archive:
        yield piece
        sent += len(piece)
        percent, now = 100 * sent // max(size, 1), time.monotonic()
        if percent >= shown + _PERCENT and now >= told + _PAUSE:
            told, shown = now, percent
            progress(f"sending the images to {where}: {sent // _MIB} of about {size // _MIB} MiB")
    progress(f"{where} unpacks the images")


def compressed(archive: Iterable[bytes]) -> Iterator[bytes]:
    """The archive in gzip's form (RFC 1952)."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    for piece in archive:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()
