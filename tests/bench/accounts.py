"""How a lab grows with its accounts: until it is up, at rest, and as it delivers."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from mailstack import prove
from mailstack.model import SERVICES, Deadline
from mailstack.running import RunningLab
from tests.bench.measuring import MAILSTACK, Figures, Ratio, Row, alternate, paired, run, timed

TITLE = "10, 1,000 and 10,000 accounts"
NAME = "bench-accounts"

COUNTS = (10, 1_000, 10_000)
MAILS = 20

NOTES = (
    "The accounts stand in an overlay's x-mailstack block, besides the lab's own.",
    f"Memory is what `docker stats` tells of the three containers after {MAILS} mails.",
    "A mail's time is from the sender's log-in to the recipient's sight of it.",
)


def measure(runs: int) -> Figures:
    """A lab with each number of accounts in turn, as a whole: up, mails, down."""
    memory: dict[int, list[float]] = {count: [] for count in COUNTS}
    mails: dict[int, list[float]] = {count: [] for count in COUNTS}
    with tempfile.TemporaryDirectory() as directory:
        overlays = {count: Path(directory, f"{count}.yaml") for count in COUNTS}
        for count, overlay in overlays.items():
            lines = "".join(f"    user{number:05}@example.com: {{}}\n" for number in range(count))
            overlay.write_text(f"x-mailstack:\n  accounts:\n{lines}")
        sides = {
            f"{count} accounts": lambda count=count: _up(overlays[count], memory[count], mails[count])
            for count in COUNTS
        }
        seconds = dict(zip(COUNTS, alternate(sides, runs).values(), strict=True))
    return Figures(_rows(seconds, memory, mails), _ratios(seconds, memory, mails), NOTES)


def _up(overlay: Path, memory: list[float], mails: list[float]) -> float:
    begun = time.perf_counter()
    answer = run([MAILSTACK, "up", "-n", NAME, "-f", overlay, "--json", "--progress", "quiet"])
    taken = time.perf_counter() - begun
    assert json.loads(answer)["verified"]["message_id"]
    try:
        lab = RunningLab(NAME)
        each = [prove.transaction(lab, Deadline.after(30), lambda: False)[1] for _ in range(MAILS)]
        mails.append(statistics.median(each))
        memory.append(_mebibytes())
    finally:
        timed(MAILSTACK, "down", "-n", NAME)
    return taken


def _mebibytes() -> float:
    """The memory of the lab's containers, without the file cache."""
    names = [f"mailstack-{NAME}-{service}-1" for service in SERVICES]
    told = run(["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", *names])
    units = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"^([\d.]+)([KMG]iB) /", told, re.MULTILINE))


Values = Mapping[int, list[float]] | Mapping[int, tuple[float, ...]]


def _rows(seconds: Values, memory: Values, mails: Values) -> tuple[Row, ...]:
    kinds = (("up", seconds, "s"), ("memory at rest", memory, "MiB"), ("a mail, seen", mails, "ms"))
    return tuple(
        Row(f"{title}, {count:,} accounts", tuple(values[count][-len(seconds[count]) :]), unit)
        for title, values, unit in kinds
        for count in COUNTS
    )


def _ratios(seconds: Values, memory: Values, mails: Values) -> tuple[Ratio, ...]:
    few, *_, many = COUNTS
    return tuple(
        Ratio(f"{title}, {many:,} ÷ {few} accounts", paired(values[many][-runs:], values[few][-runs:]), bar=bar)
        for runs in (len(seconds[few]),)
        for title, values, bar in (("up", seconds, 1.5), ("memory at rest", memory, None), ("a mail", mails, None))
    )
