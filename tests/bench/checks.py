"""How long all checks take on a lab that is up."""

from __future__ import annotations

import json
import time

from tests.bench.measuring import MAILSTACK, Figures, Row, alternate, run

TITLE = "all checks"
NAME = "bench-checks"


def measure(runs: int) -> Figures:
    """All of them in one lab, one run after the other."""
    run([MAILSTACK, "up", "-n", NAME])
    try:
        seconds = alternate({"check": _check}, runs)
    finally:
        run([MAILSTACK, "down", "-n", NAME])
    return Figures((Row("mailstack check --json, all checks", seconds["check"]),))


def _check() -> float:
    begun = time.perf_counter()
    assert json.loads(run([MAILSTACK, "check", "-n", NAME, "--json"]))["failed"] == 0
    return time.perf_counter() - begun
