"""The report's document: verdicts, conditions and evidence, without any secret of the lab."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mailstack.checks.judging import Unmet
from mailstack.errors import MailstackError
from mailstack.experiment.facts import facts
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Outcome, Step, run
from mailstack.model import Json, Verdict


@dataclass(frozen=True, slots=True)
class Performance:
    """The report's document and the servers' logs, without any secret of the lab."""

    lab: str
    document: Json
    logs: Mapping[str, str]


class Watch:
    """The time at which the experiment began."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.started = datetime.datetime.now().astimezone()

    def seconds(self) -> float:
        """Return the seconds since then."""
        return round(time.monotonic() - self._start, 3)


def perform_steps(scene: Scene, steps: Sequence[Step], progress: Callable[[str], None]) -> list[Outcome]:
    """Run all steps and report each; return their outcomes."""
    done: list[Outcome] = []

    def on_outcome(outcome: Outcome) -> None:
        done.append(outcome)
        progress(f"{len(done)} of {len(steps)} {outcome.verdict}: {outcome.step.title}")

    outcomes = run(scene, steps, on_outcome)
    if not scene.journeys:  # the first mail got stuck: show how far it came
        with contextlib.suppress(Unmet, MailstackError):
            scene.keep("store-and-forward", scene.trace(scene.first_mail))
    return outcomes


def performance(scene: Scene, outcomes: Sequence[Outcome], watch: Watch, whose: Json) -> Performance:
    """Return the document of an experiment; `whose` has the author, the student's lab, and the rows of its settings."""
    passed = sum(outcome.verdict is Verdict.PASS for outcome in outcomes)
    data = {
        "verdict": str(Verdict.PASS if passed == len(outcomes) else Verdict.FAIL),
        "passed": passed,
        "failed": len(outcomes) - passed,
        "seconds": 0.0,
        "started": watch.started.isoformat(timespec="seconds"),
        "author": "",
        "lab": {},
        "settings": [],
        "configuration": "",
        "left_out": [],
        **whose,
        "facts": facts(scene),
        "steps": [outcome.json() for outcome in outcomes],
        "journeys": {model: journey.json() for model, journey in sorted(scene.journeys.items(), reverse=True)},
        "dialogue": scene.dialogue,
    }
    # The one place where secrets are taken out: servers and programs may have repeated them in any of this.
    blotter = scene.lab.blotter()
    document: Json = blotter.document(json.loads(json.dumps(data)))
    logs = {service: blotter.clean(log) for service, log in scene.all_logs().items()}
    document["seconds"] = watch.seconds()
    return Performance(scene.lab.name, document, logs)
