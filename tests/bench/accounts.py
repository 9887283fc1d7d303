"""How a lab grows with its accounts: until it is up, at rest, and as it delivers."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mailstack.actions.accounts import Accounts
from mailstack.engine import projects
from mailstack.lab import readiness
from mailstack.lab.running import RunningLab
from mailstack.model import SERVICES, Deadline
from tests import engines
from tests.bench.measuring import MAILSTACK, Figures, Ratio, Row, alternate, paired, run, timed

TITLE = "10, 1,000 and 10,000 accounts"
NAME = "bench-accounts"

COUNTS = (10, 1_000, 10_000)
MAILS = 20
ADDED = 20

NOTES = (
    "The accounts stand in an overlay's x-mailstack block, besides the lab's own.",
    f"Memory is what `docker stats` tells of the three containers after {MAILS} mails.",
    "A mail's time is from the sender's log-in to the recipient's sight of it.",
    (
        f"An account is added with `Accounts.add`, which returns when it has logged in: the median of {ADDED}. The "
        "first of a process starts a program in Postfix's container, and is told by itself."
    ),
)


def measure(runs: int) -> Figures:
    """A lab with each number of accounts in turn, as a whole: up, mails, down."""
    found = {count: _Found() for count in COUNTS}
    with tempfile.TemporaryDirectory() as directory:
        overlays = {count: Path(directory, f"{count}.yaml") for count in COUNTS}
        for count, overlay in overlays.items():
            lines = "".join(f"    user{number:05}@example.com: {{}}\n" for number in range(count))
            overlay.write_text(f"x-mailstack:\n  accounts:\n{lines}")
        sides = {f"{count} accounts": lambda count=count: _up(overlays[count], found[count]) for count in COUNTS}
        seconds = dict(zip(COUNTS, alternate(sides, runs).values(), strict=True))
    return _figures(seconds, found, runs)


@dataclass(slots=True)
class _Found:
    """What was found besides how long `up` takes, run by run, with the one that is not counted first."""

    memory: list[float] = field(default_factory=list)
    mails: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # account that was added
    added: list[float] = field(default_factory=list)


def _up(overlay: Path, found: _Found) -> float:
    begun = time.perf_counter()
    answer = run([MAILSTACK, "up", "-n", NAME, "-f", overlay, "--json", "--progress", "quiet"])
    taken = time.perf_counter() - begun
    assert json.loads(answer)["verified"]["message_id"]
    try:
        lab = RunningLab(NAME, engines.here())
        each = [readiness.transaction(lab, Deadline.after(30), lambda: False)[1] for _ in range(MAILS)]
        found.mails.append(statistics.median(each))
        found.memory.append(_mebibytes())
        first, *others = _adding(lab)
        found.first.append(first)
        found.added.append(statistics.median(others))
    finally:
        timed(MAILSTACK, "down", "-n", NAME)
    return taken


def _adding(lab: RunningLab) -> list[float]:
    """How long it takes to add an account to the running lab, one after another, in milliseconds."""
    taken = []
    with Accounts(lab) as accounts:
        for number in range(ADDED + 1):
            begun = time.perf_counter()
            accounts.add(f"added{number}@example.com")
            taken.append((time.perf_counter() - begun) * 1000)
    return taken


def _mebibytes() -> float:
    """The memory of the lab's containers, without the file cache."""
    names = [f"{projects.project_name(NAME)}-{service}-1" for service in SERVICES]
    told = run(["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", *names])
    units = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"^([\d.]+)([KMG]iB) /", told, re.MULTILINE))


def _figures(seconds: Mapping[int, tuple[float, ...]], found: Mapping[int, _Found], runs: int) -> Figures:
    """One row for each kind of figure and number of accounts; ratios of the most to the fewest."""
    counted: dict[str, Mapping[int, Sequence[float]]] = {
        "up": seconds,
        "memory at rest": {count: each.memory[-runs:] for count, each in found.items()},
        "a mail, seen": {count: each.mails[-runs:] for count, each in found.items()},
        "account add": {count: each.added[-runs:] for count, each in found.items()},
        "account add, a process's first": {count: each.first[-runs:] for count, each in found.items()},
    }
    units = {"up": "s", "memory at rest": "MiB"}
    few, *_, many = COUNTS
    return Figures(
        tuple(
            Row(f"{title}, {count:,} accounts", tuple(values[count]), units.get(title, "ms"))
            for title, values in counted.items()
            for count in COUNTS
        ),
        (
            *(
                Ratio(f"{title}, {many:,} ÷ {few} accounts", paired(counted[kind][many], counted[kind][few]), bar=bar)
                for title, kind, bar in (
                    ("up", "up", 1.5),
                    ("memory at rest", "memory at rest", None),
                    ("a mail", "a mail, seen", None),
                )
            ),
            *(
                Ratio(
                    f"account add, median, ms, {count:,} accounts",
                    statistics.median(counted["account add"][count]),
                    bar=20,
                )
                for count in (few, many)
            ),
        ),
        NOTES,
    )
