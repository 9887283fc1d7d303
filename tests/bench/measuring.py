"""What all benchmarks share: sides in alternation, their figures, and how these are shown.

Both sides of a comparison run in one go, in turn, so that a machine whose speed drifts does so for both; medians are
what counts, and ratios are taken pair by pair.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mailstack.model import Json

MAILSTACK = Path(sys.executable).with_name("mailstack")

# The least number of counted runs of which a median is taken.
LEAST = 7


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one side, run by run."""

    title: str
    values: tuple[float, ...]
    unit: str = "s"


@dataclass(frozen=True, slots=True)
class Ratio:
    """One side against another, or a figure by itself, and the bar that it is held against."""

    title: str
    value: float
    bar: float | None = None
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Whether it is on the right side of its bar."""
        return self.bar is None or (self.value <= self.bar if self.at_most else self.value >= self.bar)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a benchmark found."""

    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...] = ()
    notes: tuple[str, ...] = ()

    def json(self) -> Json:
        """For machines: every value, so that somebody else can take other statistics of them."""
        return {
            "rows": [
                {
                    "title": row.title,
                    "unit": row.unit,
                    "median": statistics.median(row.values) if row.values else None,
                    "values": list(row.values),
                }
                for row in self.rows
            ],
            "ratios": [
                {"title": each.title, "value": each.value, "bar": each.bar, "at_most": each.at_most, "met": each.met}
                for each in self.ratios
            ],
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """For people, 80 columns wide."""
        lines = [f"{'':<46}{'min':>8}{'median':>9}{'max':>9}"] if self.rows else []
        for row in self.rows:
            figures = (min(row.values), statistics.median(row.values), max(row.values)) if row.values else ()
            told = "".join(f"{_short(each):>{8 + bool(n)}}" for n, each in enumerate(figures)) or f"{'–':>26}"
            lines += _wrapped(row.title, 46)
            lines[-1] = f"{lines[-1]:<46}{told} {row.unit}".rstrip()
        if self.ratios:
            lines.append("")
        for each in self.ratios:
            bar = f"  (bar: {'≤' if each.at_most else '≥'} {each.bar:g}" if each.bar is not None else ""
            bar += ")" if bar and each.met else ", missed)" if bar else ""
            lines += _wrapped(each.title, 46)
            lines[-1] = f"{lines[-1]:<46}{_short(each.value):>17}{bar}"
        if self.notes:
            lines.append("")
        for note in self.notes:
            lines += _wrapped(note, 80)
        return "\n".join(lines)


def alternate(sides: Mapping[str, Callable[[], float]], runs: int) -> dict[str, tuple[float, ...]]:
    """What each side gives, in so many rounds of all of them; one round before these is not counted."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(runs + 1):
        for name, side in sides.items():
            value = side()
            say(f"{number} of {runs}: {name} {_short(value)}")
            if number:
                values[name].append(value)
    say("")
    return {name: tuple(each) for name, each in values.items()}


def paired(one: Sequence[float], other: Sequence[float]) -> float:
    """The median of the ratios of runs that were made one after the other."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of the values that so many per cent of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def timed(*argv: str | Path, environment: Mapping[str, str] | None = None) -> float:
    """How long a command takes, as a whole process, in seconds."""
    begun = time.perf_counter()
    run(list(argv), environment)
    return time.perf_counter() - begun


def run(argv: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end; its standard output. What it says otherwise is shown when it fails.

    Python may keep its bytecode, as it does where a package is installed.
    """
    variables = {**os.environ, **(environment or {})}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    result = subprocess.run(argv, env=variables, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{argv[0]} exited with code {result.returncode}\n{result.stderr[-2000:]}")
    return result.stdout


def say(text: str) -> None:
    """Tell how far it is, on one line that goes again."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:79]}", end="", file=sys.stderr, flush=True)


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width - 1) or [""]
