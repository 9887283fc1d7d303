"""How the steps of the experiment run: order, parallelism, and failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from mailstack.checks.judging import expect
from mailstack.errors import CheckFailed
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.performance import ORDER, all_steps
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Step, judge, run
from mailstack.model import Json, Verdict

ROOT = Path(__file__).parents[2]
DOCUMENT: Json = json.loads((ROOT / "tests" / "data" / "experiment.json").read_text())
SCENE = cast(Scene, None)  # the steps below look at nothing


def _step(id: str, function: Callable[[Any, Evidence], None], *needs: str, alone: bool = False) -> Step:
    return Step(id, f"title of {id}", "row", "done", "expected", function, needs, alone)


def _fine(scene: Scene, show: Evidence) -> None:
    show.text("seen", "it\n")


def _unmet(scene: Scene, show: Evidence) -> None:
    show.text("seen", "so far")
    expect(False, "it is not so")


def test_a_step_passes_with_its_evidence_and_without_a_reason() -> None:
    outcome = judge(_step("a", _fine), SCENE, {})
    assert (outcome.verdict, outcome.reason) == (Verdict.PASS, "")
    assert outcome.json()["evidence"] == [{"kind": "text", "title": "seen", "text": "it"}]


def test_a_step_that_fails_keeps_the_evidence_that_it_has_found_until_then() -> None:
    outcome = judge(_step("a", _unmet), SCENE, {})
    assert (outcome.verdict, outcome.reason) == (Verdict.FAIL, "it is not so")
    assert [each["text"] for each in outcome.evidence] == ["so far"]


@pytest.mark.parametrize("error", [CheckFailed("refused"), ConnectionRefusedError("refused"), EOFError("refused")])
def test_what_goes_wrong_on_the_way_makes_a_step_fail(error: Exception) -> None:
    def function(scene: Scene, show: Evidence) -> None:
        raise error

    outcome = judge(_step("a", function), SCENE, {})
    assert outcome.verdict is Verdict.FAIL and outcome.reason.endswith("refused")


@pytest.mark.parametrize("error", [KeyError("relayhost"), ValueError("no date")])
def test_what_cannot_be_read_makes_a_step_fail(error: Exception) -> None:
    def function(scene: Scene, show: Evidence) -> None:
        raise error

    outcome = judge(_step("a", function), SCENE, {})
    assert outcome.verdict is Verdict.FAIL
    assert outcome.reason.startswith("unexpected answer: ")


def test_a_mistake_in_the_program_is_no_verdict() -> None:
    def function(scene: Scene, show: Evidence) -> None:
        raise TypeError("a mistake")

    with pytest.raises(TypeError):
        judge(_step("a", function), SCENE, {})


def test_a_step_that_needs_a_failed_one_is_not_done_and_names_the_first_that_failed() -> None:
    done = []

    def never(scene: Scene, show: Evidence) -> None:
        done.append(True)

    steps = [_step("a", _unmet), _step("b", never, "a"), _step("c", never, "b"), _step("d", _fine)]
    outcomes = run(SCENE, steps, lambda outcome: None)
    assert [outcome.verdict for outcome in outcomes] == [Verdict.FAIL, Verdict.FAIL, Verdict.FAIL, Verdict.PASS]
    assert [outcome.reason for outcome in outcomes[1:3]] == ["it needs “title of a”, which failed: it is not so"] * 2
    assert [outcome.json()["blocked_by"] for outcome in outcomes] == [None, "a", "a", None]
    assert not done


def test_nothing_runs_beside_a_step_that_is_to_be_alone() -> None:
    now: set[str] = set()
    beside: dict[str, set[str]] = {}
    lock = threading.Lock()

    def watched(id: str) -> Callable[[Any, Evidence], None]:
        def function(scene: Scene, show: Evidence) -> None:
            with lock:
                beside[id] = set(now)
                now.add(id)
            threading.Event().wait(0.01)
            now.remove(id)

        return function

    steps = [_step(id, watched(id), alone=id == "c") for id in "abcde"]
    told: list[str] = []
    outcomes = run(SCENE, steps, lambda outcome: told.append(outcome.step.id))
    assert [outcome.step.id for outcome in outcomes] == list("abcde")
    assert beside["c"] == set() and told[-1] == "c"


def test_a_step_is_done_after_those_that_it_needs_wherever_they_stand() -> None:
    order: list[str] = []

    def noted(id: str) -> Callable[[Any, Evidence], None]:
        return lambda scene, show: order.append(id)

    steps = [_step("a", noted("a"), "c"), _step("b", noted("b"), "a"), _step("c", noted("c"))]
    assert [outcome.step.id for outcome in run(SCENE, steps, lambda outcome: None)] == ["a", "b", "c"]
    assert order == ["c", "a", "b"]


def test_each_step_has_a_name_of_its_own_and_what_it_needs_can_be_done_before_it() -> None:
    steps = {step.id: step for step in all_steps()}
    assert len(steps) == len(all_steps()) and [step.id for step in all_steps()] == list(ORDER)
    done: set[str] = set()
    while ready := {id for id, step in steps.items() if id not in done and done.issuperset(step.needs)}:
        done |= ready
    assert done == set(steps)
    for step in steps.values():
        assert step.row and step.done and step.expected and step.title
