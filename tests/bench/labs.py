"""Labs side by side: how long they take to come up together, what they take of the machine, how fast mail is there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.containers import memory
from tests.bench.measuring import MAILSTACK, Figures, Ratio, Row, alternate, paired, percentile, run

TITLE = "1, 2, 4 and 8 labs at once"
NAME = "bench-labs"

COUNTS = (1, 2, 4, 8)
RATE, MAILS = 10, 20  # messages/s in each lab: a steady trickle, that no lab has to hurry for


class Side:
    """So many labs."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.downs: list[float] = []
        self.memories: list[float] = []
        self.deliveries: list[list[float]] = []  # in milliseconds, one value for each lab: p50

    def __call__(self) -> float:
        """Bring them up at once, have mail delivered in all of them, take them down: the slowest `up`, in seconds."""
        names = [f"{NAME}-{number}" for number in range(self.count)]
        try:
            seconds = max(taken for taken, _ in _together(names, "up", "--progress", "quiet"))
            self.memories.append(memory(names) / self.count)
            load = ("load", "--rate", f"{RATE}", "--messages", f"{MAILS}", "--connections", "2", "--mailboxes", "4")
            answers = [json.loads(out) for _, out in _together(names, *load)]
            assert all(answer["delivered"] == MAILS for answer in answers), answers
            self.deliveries.append([answer["delivery_milliseconds"]["p50"] for answer in answers])
        finally:
            downs = _together(names, "down")
        self.downs.append(max(taken for taken, _ in downs))
        return seconds


def measure(runs: int) -> Figures:
    """All counts in turn."""
    sides = {count: Side(count) for count in COUNTS}
    rounds: dict[str, Callable[[], float]] = {f"{count} at once": side for count, side in sides.items()}
    ups = dict(zip(COUNTS, alternate(rounds, runs).values(), strict=True))
    return Figures(
        (
            *(Row(f"up of the slowest of {count}", ups[count]) for count in COUNTS),
            *(Row(f"down of the slowest of {count}", tuple(sides[count].downs[1:])) for count in COUNTS),
            *(Row(f"memory of each of {count}", tuple(sides[count].memories[1:]), "MiB") for count in COUNTS),
            *(Row(f"sent to delivered, p50 in each of {count}", _each(sides[count]), "ms") for count in COUNTS),
        ),
        (
            *(Ratio(f"up of {n} at once ÷ {n} × that of one", paired(ups[n], ups[1]) / n) for n in COUNTS[1:]),
            Ratio(
                f"p50 of {COUNTS[-1]} labs ÷ that of one",
                percentile(_each(sides[COUNTS[-1]]), 50) / percentile(_each(sides[1]), 50),
            ),
        ),
        (
            f"The mail: {RATE} messages/s in each lab at the same time, {MAILS} of 2 KB, all of which arrived.",
            "Each lab has a client of its own, and all share the machine's processors.",
        ),
    )


def _each(side: Side) -> tuple[float, ...]:
    return tuple(value for values in side.deliveries[1:] for value in values)


def _together(names: Sequence[str], *words: str) -> list[tuple[float, str]]:
    """A command on labs, all at once: how long it took, and what it answered, for each."""

    def one(name: str) -> tuple[float, str]:
        begun = time.perf_counter()
        command: list[str | Path] = [MAILSTACK, *words, "-n", name, "--json"]
        answer = run(command)
        return time.perf_counter() - begun, answer

    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(one, names))
