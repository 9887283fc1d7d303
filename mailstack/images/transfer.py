"""Send images from one engine to another, as one compressed stream that is never stored on a disk here."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Sequence

from mailstack.engine.engine import Engine
from mailstack.errors import EngineError
from mailstack.model import Progress

_MIB = 1 << 20
# Progress is reported after so much more data, but not more often than that.
_PAUSE = 0.5  # seconds
_PERCENT = 2
# zlib(3): the fastest level reduces these images to a third, faster than most networks take it. 31 selects gzip.
_LEVEL, _GZIP = 1, 31


def can_send(source: Engine, target: Engine, references: Sequence[str]) -> bool:
    """Return whether `source` answers, and has all these images for the architecture of `target`."""
    try:
        wanted = target.platform()
        return all(source.image_platform(reference) == wanted for reference in references)
    except EngineError:
        return False


def send(source: Engine, target: Engine, references: Sequence[str], size: int, progress: Progress, where: str) -> None:
    """Send images of `source`, about `size` bytes, to `target`, which is the engine of `where`.

    Raises HostError when one of the two fails.
    """
    target.load(compressed(with_progress(source.save(references), size, progress, where)))


def with_progress(archive: Iterable[bytes], size: int, progress: Progress, where: str) -> Iterator[bytes]:
    """Yield the archive piece by piece, and report the progress."""
    sent, reported, shown = 0, time.monotonic(), 0
    progress(f"sending the images to {where}: about {size // _MIB} MiB")
    for piece in archive:
        yield piece
        sent += len(piece)
        percent, now = 100 * sent // max(size, 1), time.monotonic()
        if percent >= shown + _PERCENT and now >= reported + _PAUSE:
            reported, shown = now, percent
            progress(f"sending the images to {where}: {sent // _MIB} of about {size // _MIB} MiB")
    progress(f"{where} unpacks the images")


def compressed(archive: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the archive compressed with gzip (RFC 1952)."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    for piece in archive:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()
