"""The experiment from beginning to end: a lab of its own, every step, the document, and the lab's removal."""

from __future__ import annotations

import contextlib
import datetime
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mailstack.checks.judging import Unmet
from mailstack.engine import projects
from mailstack.engine.engine import Engine
from mailstack.errors import EngineError, InputError, MailstackError
from mailstack.experiment import first_mail, machine, mailbox, models, queue, roles, settings, talk, theory
from mailstack.experiment.facts import facts
from mailstack.experiment.scene import TTL_SECONDS, Scene
from mailstack.experiment.step import Outcome, Step, run
from mailstack.lab import down, homes, up
from mailstack.lab.leases import Leases, guard
from mailstack.lab.running import RunningLab
from mailstack.model import Json, Verdict
from mailstack.runner.local import Local

# Many times what a lab needs until it is proven; one that takes longer does not get through the steps, either.
UP_PATIENCE_SECONDS = 12.0

# The steps in the experiment's order: the student's work, the theory, the roles.
ORDER = (
    *("lab", "install", "mailname"),
    *(setting.name for setting in settings.SETTINGS),
    *("credentials", "send", "tls-and-sasl", "arrive", "answer"),
    *("parts", "end-to-end", "store-and-forward", "queue", "dialogue", "message", "mime", "receiving", "hops"),
    *("roles", "outside"),
)


def all_steps() -> list[Step]:
    """Return every step, in the order of the experiment."""
    modules = (machine, settings, first_mail, theory, models, queue, talk, mailbox, roles)
    return sorted((step for module in modules for step in module.steps.all), key=lambda step: ORDER.index(step.id))


@dataclass(frozen=True, slots=True)
class Performance:
    """The report's document and the servers' logs, without any secret of the lab."""

    lab: str
    document: Json
    logs: Mapping[str, str]


def perform(engine: Engine, overlays: Sequence[Path], keep: bool, progress: Callable[[str], None]) -> Performance:
    """Perform the whole experiment. Raises InputError, HostError, Interrupted."""
    start = time.monotonic()
    started = datetime.datetime.now().astimezone()
    with _lab(engine, overlays, keep, progress) as scene:
        steps = all_steps()
        done: list[Outcome] = []

        def on_outcome(outcome: Outcome) -> None:
            done.append(outcome)
            progress(f"{len(done)} of {len(steps)} {outcome.verdict}: {outcome.step.title}")

        outcomes = run(scene, steps, on_outcome)
        if not scene.journeys:  # the first mail got stuck: show how far it came
            with contextlib.suppress(Unmet, MailstackError):
                scene.keep("store-and-forward", scene.trace(scene.first_mail))
        passed = sum(outcome.verdict is Verdict.PASS for outcome in outcomes)
        data = {
            "verdict": str(Verdict.PASS if passed == len(outcomes) else Verdict.FAIL),
            "passed": passed,
            "failed": len(outcomes) - passed,
            "seconds": 0.0,
            "started": started.isoformat(timespec="seconds"),
            "facts": facts(scene),
            "steps": [outcome.json() for outcome in outcomes],
            "journeys": {model: journey.json() for model, journey in sorted(scene.journeys.items(), reverse=True)},
            "dialogue": scene.dialogue,
        }
        # The one place where secrets are taken out: servers and programs may have repeated them in any of this.
        blotter = scene.lab.blotter()
        document: Json = blotter.document(json.loads(json.dumps(data)))
        logs = {service: blotter.clean(log) for service, log in scene.all_logs().items()}
    document["seconds"] = round(time.monotonic() - start, 3)
    return Performance(scene.lab.name, document, logs)


@contextlib.contextmanager
def _lab(engine: Engine, overlays: Sequence[Path], keep: bool, progress: Callable[[str], None]) -> Iterator[Scene]:
    """Bring up a lab for as long as `with` lasts; with `keep` it stays when that ended well.

    When `up` cannot prove it, the steps show why. When this process is killed, the guard removes it.
    """
    name = f"experiment-{secrets.token_hex(4)}"
    home = homes.current(engine)  # before anything is made: where no engine answers, nothing could be removed
    scene, done, leases = None, False, Leases(home, name)
    try:
        leases.acquire()
        guard(engine.target, home, name, Local())
        roles.prepare(engine, name)
        up_result: up.Report | MailstackError
        try:
            ttl = None if keep else TTL_SECONDS
            request = up.Request(name, tuple(overlays), keep=True, ttl=ttl, patience=UP_PATIENCE_SECONDS)
            up_result = up.up(engine, request, progress)
        except (InputError, EngineError):
            raise
        except MailstackError as error:
            states = engine.services(projects.project_name(name))
            if not any(state.state == "running" for state in states):
                raise
            up_result = error
        scene = Scene(RunningLab(name, engine), up_result)
        yield scene
        done = True
    finally:
        with ThreadPoolExecutor() as pool:
            second = pool.submit(scene.second.remove) if scene else None
            # The lease of a lab that is kept ends as well: then no guard waits for the end of this process.
            leases.release(lambda: None if keep and done else down.down(engine, name, progress))
            if second:
                second.result()
