"""Steps of the experiment: their descriptions, their verdicts, and their order.

A step is a function that adds its evidence as it finds it, and raises Unmet where an expectation fails. Its verdict is
computed from nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from mailstack.checks import judging
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.scene import Scene
from mailstack.model import Json, Verdict

Function = Callable[[Scene, Evidence], None]

# Steps that run side by side: each waits for servers much more than it computes.
SIDE_BY_SIDE = 6


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the experiment: what is done, what is expected, and the function that does and judges it."""

    id: str
    title: str
    row: str  # what the experiment says
    done: str
    expected: str
    function: Function
    needs: tuple[str, ...] = ()  # steps without which this one cannot be done
    alone: bool = False  # stops a server, so nothing runs beside it


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a step."""

    step: Step
    verdict: Verdict
    reason: str  # why it failed, or ""
    seconds: float
    evidence: tuple[Json, ...]
    lacks: Outcome | None = None  # the failed step without which it could not be done

    def json(self) -> Json:
        """Return the step as in the experiment's document."""
        return {
            "id": self.step.id,
            "title": self.step.title,
            "row": self.step.row,
            "done": self.step.done,
            "expected": self.step.expected,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
            "evidence": list(self.evidence),
        }


class Steps:
    """The steps of a module, registered by decorator: `@steps("id", "title", row=…, done=…, expected=…)`."""

    def __init__(self) -> None:
        self.all: list[Step] = []

    def __call__(
        self,
        id: str,
        title: str,
        *,
        row: str,
        done: str,
        expected: str,
        needs: Sequence[str] = (),
        alone: bool = False,
    ) -> Callable[[Function], Function]:
        """Add a step."""

        def add(function: Function) -> Function:
            self.all.append(Step(id, title, row, done, expected, function, tuple(needs), alone))
            return function

        return add


def run(scene: Scene, steps: Iterable[Step], on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
    """Do the steps, side by side where they can; the outcomes are in the steps' order."""
    steps = list(steps)
    outcomes: dict[str, Future[Outcome]] = {}

    def one(step: Step) -> Outcome:
        outcome = judge(step, scene, {needed: outcomes[needed].result() for needed in step.needs})
        on_outcome(outcome)
        return outcome

    pool = ThreadPoolExecutor(SIDE_BY_SIDE)
    try:
        # A step is submitted after those that it needs, so that it waits for steps that have been started.
        waiting = [step for step in steps if not step.alone]
        while waiting:
            ready = [step for step in waiting if outcomes.keys() >= set(step.needs)]
            assert ready, f"what these need is not to be had: {[step.id for step in waiting]}"
            # The last ones take longest: they start first, so that nothing waits for them alone.
            for step in reversed(ready):
                outcomes[step.id] = pool.submit(one, step)
                waiting.remove(step)
        for future in list(outcomes.values()):
            future.result()
        for step in steps:
            if step.alone:
                outcomes[step.id] = pool.submit(one, step)
                outcomes[step.id].result()
    finally:
        # Interrupted: steps that have not started never do; the others end when the lab is removed.
        pool.shutdown(wait=False, cancel_futures=True)
    return [outcomes[step.id].result() for step in steps]


def judge(step: Step, scene: Scene, needed: Mapping[str, Outcome]) -> Outcome:
    """Do one step; return its verdict, with the evidence up to where it ended. Raises the errors of `judging.judge`."""
    for outcome in needed.values():
        if outcome.verdict is not Verdict.PASS:
            lacks = outcome.lacks or outcome
            reason = f"it needs “{lacks.step.id}”, which failed: {lacks.reason}"
            return Outcome(step, Verdict.FAIL, reason, 0.0, (), lacks)
    started = time.monotonic()
    evidence = Evidence()

    def prove() -> str:
        step.function(scene, evidence)
        return ""

    verdict, reason = judging.judge(prove, LookupError, ValueError)
    return Outcome(step, verdict, reason, time.monotonic() - started, evidence.all())
