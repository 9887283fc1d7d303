"""The failures of an experiment's document: each cause once, with the rows that fail for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mailstack.model import Json


@dataclass(slots=True)
class Failure:
    """A row that failed, and the others that failed for the same cause. Rows are numbered from 1."""

    number: int
    step: Json
    same: list[tuple[int, Json]] = field(default_factory=list)

    @property
    def reason(self) -> str:
        """Return why it failed, with the remedy after `→` where there is one."""
        reason: str = self.step["reason"]
        return reason


def spans(numbers: Sequence[int]) -> str:
    """Return ascending numbers in short: `2, 4, 21–31`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def failures(steps: Sequence[Json]) -> list[Failure]:
    """Return the causes of failures in the order of the rows.

    Two rows have the same cause if one needs the other (`blocked_by`), or if their reasons are the same.
    """
    by_reason: dict[str, Failure] = {}
    by_id: dict[str, Failure] = {}
    failed = [(number, step) for number, step in enumerate(steps, start=1) if step["verdict"] != "pass"]
    # A row may stand before the one that it needs.
    for number, step in sorted(failed, key=lambda each: each[1].get("blocked_by") is not None):
        cause = by_id.get(step.get("blocked_by") or "") or by_reason.get(step["reason"])
        if cause:
            cause.same.append((number, step))
        else:
            cause = by_reason[step["reason"]] = Failure(number, step)
        by_id[step["id"]] = cause
    for cause in by_reason.values():
        cause.same.sort(key=lambda each: each[0])
    return sorted(by_reason.values(), key=lambda cause: cause.number)
