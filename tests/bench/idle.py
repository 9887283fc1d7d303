"""What a lab takes of the machine while nobody uses it."""

from __future__ import annotations

import itertools
import time

from mailstack.model import SERVICES
from tests.bench.containers import Use, use
from tests.bench.measuring import MAILSTACK, Figures, Row, run, say

TITLE = "an idle lab"
NAME = "bench-idle"

SECONDS = 10.0  # of idleness, for each value
REST = 5.0  # until what the proof has begun has ended


def measure(runs: int) -> Figures:
    """So many times what each container takes in a while in which nothing happens but its healthcheck."""
    run([MAILSTACK, "up", "-n", NAME])
    try:
        time.sleep(REST)
        moments = [use(NAME)]
        for number in range(runs):
            time.sleep(SECONDS)
            moments.append(use(NAME))
            say(f"{number + 1} of {runs}")
        say("")
    finally:
        run([MAILSTACK, "down", "-n", NAME])
    memory = {name: tuple(each[name].memory for each in moments[1:]) for name in SERVICES}
    busy = {name: tuple(_busy(a[name], b[name]) for a, b in itertools.pairwise(moments)) for name in SERVICES}
    return Figures(
        (
            *(Row(f"memory of {name}", memory[name], "MiB") for name in SERVICES),
            Row("memory of all three", tuple(map(sum, zip(*memory.values(), strict=True))), "MiB"),
            *(Row(f"processor time of {name}", busy[name], "ms/s") for name in SERVICES),
            Row("processor time of all three", tuple(map(sum, zip(*busy.values(), strict=True))), "ms/s"),
        ),
        notes=(
            f"{runs} whiles of {SECONDS:g} s, one after another. Processor time is of one; healthchecks count.",
            "Memory is what the engine accounts to a container, without page cache that is not in use.",
        ),
    )


def _busy(before: Use, after: Use) -> float:
    """Milliseconds of processor time in each second."""
    return 1000 * (after.cpu - before.cpu) / (after.when - before.when)
