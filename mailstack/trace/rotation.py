"""Whether a container's log still has its beginning, or the engine has removed that to keep its size bounded. Pure.

json-file (Docker's documentation): a file that has reached `max-size` gives way to a new one, and of more than
`max-file` of them the oldest is removed. So something has been removed only where all but the newest are full.
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
# What the engine writes around each line: {"log":"…\n","stream":"stdout","time":"…"}, without what `logs` gives.
_AROUND = 39
# What a character takes more in JSON as Go writes it, and the share of a full log that a shortened time may save.
_ESCAPES = {b"<": 5, b">": 5, b"&": 5, b'"': 1, b"\\": 1}
_FULL = 0.98
# What Postfix and Dovecot say when they start, after what the container's own programs may have to say.
_START = re.compile(r"]: daemon started -- version |master: Info: Dovecot v\S+ .*starting up")
_FIRST_LINES = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a log may become: bytes of a file, and files."""

    size: int
    files: int


@dataclass(frozen=True, slots=True)
class Rotated:
    """A service whose log has lost its beginning, and when what is left of it begins, in seconds of the epoch."""

    service: str
    begins: float | None

    def sentence(self) -> str:
        """For people."""
        when = "" if self.begins is None else time.strftime(" at %Y-%m-%d %H:%M:%S", time.localtime(self.begins))
        return f"the log of {self.service} begins{when}: older lines have been rotated away"

    def json(self) -> Json:
        """As it stands in documents."""
        begins = None if self.begins is None else datetime.fromtimestamp(self.begins, UTC)
        return {"service": self.service, "begins": begins and begins.isoformat(timespec="milliseconds")}


def limits(driver: str, options: Mapping[str, str]) -> Limits | None:
    """The limits of a container's log by its HostConfig.LogConfig; None where it has none."""
    defaults = {"json-file": ("-1", "1"), "local": ("20m", "5")}
    if driver not in defaults:
        return None
    size, files = defaults[driver]
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?)i?b?", options.get("max-size", size).lower())
    count = options.get("max-file", files)
    if not found or not count.isdecimal():
        return None
    return Limits(int(float(found[1]) * _UNITS[found[2]]), int(count))


def written(chunks: Iterable[bytes]) -> int:
    """Bytes that the engine has written for what it gives as a log with times."""
    total = 0
    for chunk in chunks:
        total += len(chunk) + _AROUND * chunk.count(b"\n")
        total += sum(more * chunk.count(character) for character, more in _ESCAPES.items())
    return total


def rotated(service: str, allowed: Limits | None, size: int, first: Sequence[str]) -> Rotated | None:
    """Whether a log of so many bytes, with these lines at its beginning, has lost what was before them."""
    if allowed is None or not first or size < (allowed.files - 1) * allowed.size * _FULL:
        return None
    if any(_START.search(line) for line in first[:_FIRST_LINES]):
        return None
    return Rotated(service, next((at for line in first if (at := parse(line).at) is not None), None))
