"""How long it takes to find one message in a long log.

The log is the corpus's two hundred interleaved messages, over and over under other names.
"""

from __future__ import annotations

import gzip
import re
import tempfile
from pathlib import Path

from tests.bench.measuring import MAILSTACK, Figures, Ratio, Row, alternate, timed

TITLE = "a trace, in a long log"
LINES = 100_000

CROWD = Path(__file__).parents[1] / "data" / "journeys" / "crowd.log.gz"
_QUEUE_ID = re.compile(r"\b([0-9A-F]{2})([0-9A-F]{8,10})\b")


def measure(runs: int) -> Figures:
    """Beside it, how long it takes to read the log at all."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "long.log"
        queue_id = long_log(log, LINES)
        seconds = alternate(
            {
                "trace": lambda: timed(MAILSTACK, "trace", "--logs", log, queue_id, "--json"),
                "grep": lambda: timed("grep", "-F", queue_id, log),
            },
            runs,
        )
    return Figures(
        (
            Row(f"mailstack trace --logs, {LINES:,} lines", seconds["trace"]),
            Row("grep -F, of a queue id in them", seconds["grep"]),
        ),
        (Ratio("seconds of a trace, at most", max(seconds["trace"]), bar=2.0),),
    )


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
