"""A log of any length, made of the corpus's two hundred interleaved messages, over and over under other names."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

CROWD = Path(__file__).parents[1] / "data" / "journeys" / "crowd.log.gz"
_QUEUE_ID = re.compile(r"\b([0-9A-F]{2})([0-9A-F]{8,10})\b")


def long_log(path: Path, lines: int) -> str:
    """Write a log of at least `lines` lines; a queue id in its middle."""
    whole = gzip.decompress(CROWD.read_bytes()).decode()
    copies = -(-lines // whole.count("\n"))
    first = re.findall(r"\]: ([0-9A-F]{10,12}): client=", whole)[0]
    with path.open("w", encoding="utf-8") as file:
        for copy in range(copies):
            file.write(_renamed(whole, copy))
    return _renamed(first, copies // 2)


def _renamed(text: str, copy: int) -> str:
    """The same, about other messages."""
    renamed = _QUEUE_ID.sub(lambda found: f"{int(found[1], 16) ^ copy:02X}{found[2]}", text)
    return re.sub(r"(\d+\.\d+\.\d+)@", rf"\1.{copy}@", renamed)
