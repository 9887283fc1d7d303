"""Detection of container logs whose beginning the engine has removed to limit their size. Pure functions.

json-file (Docker's documentation): a file that reaches `max-size` is rotated, and when there are more than `max-file`
files, the oldest is removed. So lines have been removed only if all files but the newest are full.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mailstack.model import Json
from mailstack.trace.lines import parse

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
# Bytes that the engine writes around each line, beyond the output of `logs`:
# {"log":"…\n","stream":"stdout","time":"…"}.
_OVERHEAD = 39
# Extra bytes of a character in JSON as Go writes it, and the share of a full log that remains if times are shortened.
_ESCAPES = {b"<": 5, b">": 5, b"&": 5, b'"': 1, b"\\": 1}
_FULL = 0.98
# Start messages of Postfix and Dovecot, which follow those of the container's own programs.
_START = re.compile(r"]: daemon started -- version |master: Info: Dovecot v\S+ .*starting up")
_FIRST_LINES = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a log: bytes of a file, and number of files."""

    size: int
    files: int


@dataclass(frozen=True, slots=True)
class Rotated:
    """A service whose log has lost its beginning, and the time of its first remaining line, in seconds of the epoch."""

    service: str
    begins: float | None

    def sentence(self) -> str:
        """Return the finding as a sentence for people."""
        when = "" if self.begins is None else time.strftime(" at %Y-%m-%d %H:%M:%S", time.localtime(self.begins))
        return f"the log of {self.service} begins{when}: older lines have been rotated away"

    def json(self) -> Json:
        """Return the finding as in documents."""
        begins = None if self.begins is None else datetime.fromtimestamp(self.begins, UTC)
        return {"service": self.service, "begins": begins and begins.isoformat(timespec="milliseconds")}


def limits(driver: str, options: Mapping[str, str]) -> Limits | None:
    """Return the limits of a container's log from its HostConfig.LogConfig; None if it has none."""
    defaults = {"json-file": ("-1", "1"), "local": ("20m", "5")}
    if driver not in defaults:
        return None
    size, files = defaults[driver]
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?)i?b?", options.get("max-size", size).lower())
    count = options.get("max-file", files)
    if not found or not count.isdecimal():
        return None
    return Limits(int(float(found[1]) * _UNITS[found[2]]), int(count))


def stored_size(chunks: Iterable[bytes]) -> int:
    """Return the bytes that the engine has stored for a log that it returns with times."""
    total = 0
    for chunk in chunks:
        total += len(chunk) + _OVERHEAD * chunk.count(b"\n")
        total += sum(more * chunk.count(character) for character, more in _ESCAPES.items())
    return total


def find_rotation(service: str, allowed: Limits | None, size: int, first: Sequence[str]) -> Rotated | None:
    """Return the finding for a log of `size` bytes that begins with the lines `first`; None if it is complete."""
    if allowed is None or not first or size < (allowed.files - 1) * allowed.size * _FULL:
        return None
    if any(_START.search(line) for line in first[:_FIRST_LINES]):
        return None
    return Rotated(service, next((at for line in first if (at := parse(line).at) is not None), None))
