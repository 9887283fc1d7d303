"""Steps of the experiment: descriptions, verdicts and order.

A step is a function that adds its evidence as it collects it, and raises Unmet when an expectation fails. Nothing
else determines its verdict.
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

# Steps run in parallel, since each waits for servers much more than it computes.
WORKERS = 6


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the experiment: an action, an expectation, and the function that performs and judges it."""

    id: str
    title: str
    row: str  # the text of the experiment's description
    done: str
    expected: str
    function: Function
    needs: tuple[str, ...] = ()  # steps that must pass before this one
    alone: bool = False  # stops a server, so no other step runs meanwhile


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a step."""

    step: Step
    verdict: Verdict
    reason: str  # why it failed, or ""
    seconds: float
    evidence: tuple[Json, ...]
    blocked_by: Outcome | None = None  # the failed step that this one needs

    def json(self) -> Json:
        """Return the step in the format of the experiment's document."""
        return {
            "id": self.step.id,
            "title": self.step.title,
            "row": self.step.row,
            "done": self.step.done,
            "expected": self.step.expected,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "blocked_by": self.blocked_by.step.id if self.blocked_by else None,
            "seconds": round(self.seconds, 3),
            "evidence": list(self.evidence),
        }


class Steps:
    """The steps of a module, registered by a decorator: `@steps("id", "title", row=…, done=…, expected=…)`."""

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
    """Run the steps, in parallel where possible; return the outcomes in the order of the steps."""
    steps = list(steps)
    outcomes: dict[str, Future[Outcome]] = {}

    def run_step(step: Step) -> Outcome:
        outcome = judge(step, scene, {needed: outcomes[needed].result() for needed in step.needs})
        on_outcome(outcome)
        return outcome

    pool = ThreadPoolExecutor(WORKERS)
    try:
        # A step is submitted after the steps that it needs, so that it only waits for steps that have been started.
        waiting = [step for step in steps if not step.alone]
        while waiting:
            ready = [step for step in waiting if outcomes.keys() >= set(step.needs)]
            assert ready, f"these steps need unknown steps: {[step.id for step in waiting]}"
            # The last steps take longest. They start first, so that nothing waits for them at the end.
            for step in reversed(ready):
                outcomes[step.id] = pool.submit(run_step, step)
                waiting.remove(step)
        for future in list(outcomes.values()):
            future.result()
        for step in steps:
            if step.alone:
                outcomes[step.id] = pool.submit(run_step, step)
                outcomes[step.id].result()
    finally:
        # After an interruption, pending steps never start. The running ones end when the lab is removed.
        pool.shutdown(wait=False, cancel_futures=True)
    return [outcomes[step.id].result() for step in steps]


def judge(step: Step, scene: Scene, needed: Mapping[str, Outcome]) -> Outcome:
    """Run one step; return its verdict, with the evidence up to its end. Raises the errors of `judging.judge`."""
    for outcome in needed.values():
        if outcome.verdict is not Verdict.PASS:
            blocked_by = outcome.blocked_by or outcome
            problem = blocked_by.reason.partition("\n→ ")[0]  # the remedy is told once, with the step that failed
            reason = f"it needs “{blocked_by.step.title}”, which failed: {problem}"
            return Outcome(step, Verdict.FAIL, reason, 0.0, (), blocked_by)
    started = time.monotonic()
    evidence = Evidence()

    def prove() -> str:
        step.function(scene, evidence)
        return ""

    verdict, reason = judging.judge(prove, LookupError, ValueError)
    return Outcome(step, verdict, reason, time.monotonic() - started, evidence.all())
