"""The experiment from beginning to end: a lab of its own, every step, the document, and nothing left behind."""

from __future__ import annotations

import contextlib
import datetime
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mailstack import __version__, compose, down, lab
from mailstack.engine import Engine
from mailstack.errors import EngineError, InputError, Interrupted, MailstackError
from mailstack.experiment import first_mail, machine, mailbox, models, queue, settings, theory
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Outcome, Step, run
from mailstack.model import Json, Verdict
from mailstack.runner import Local
from mailstack.running import RunningLab

# A lab that nobody could remove, because this process was killed, goes by itself after this time.
LIFE_SECONDS = 900.0


def all_steps() -> list[Step]:
    """Every step, in the order of the experiment; a step comes after those that it needs."""
    modules = (machine, settings, first_mail, theory, models, mailbox, queue)
    return [step for module in modules for step in module.steps.all]


def perform(overlays: Sequence[Path], keep: bool, progress: Callable[[str], None]) -> Json:
    """Do the whole experiment; gives its document. Raises InputError, HostError, Interrupted."""
    begun = time.monotonic()
    started = datetime.datetime.now().astimezone()
    with _lab(overlays, keep, progress) as (running, trouble):
        scene = Scene(running, trouble)
        steps = all_steps()
        done: list[Outcome] = []

        def tell(outcome: Outcome) -> None:
            done.append(outcome)
            progress(f"{len(done)} of {len(steps)} {outcome.verdict}: {outcome.step.title}")

        outcomes = run(scene, steps, tell)
        facts = _facts(scene)
    passed = sum(outcome.verdict is Verdict.PASS for outcome in outcomes)
    return {
        "verdict": str(Verdict.PASS if passed == len(outcomes) else Verdict.FAIL),
        "passed": passed,
        "failed": len(outcomes) - passed,
        "seconds": round(time.monotonic() - begun, 3),
        "started": started.isoformat(timespec="seconds"),
        "facts": facts,
        "steps": [outcome.json() for outcome in outcomes],
        "journeys": {},
        "dialogue": {},
    }


@contextlib.contextmanager
def _lab(
    overlays: Sequence[Path], keep: bool, progress: Callable[[str], None]
) -> Iterator[tuple[RunningLab, MailstackError | None]]:
    """A lab as long as `with` lasts, and what kept it from being proven: the steps tell where that shows."""
    name = f"experiment-{secrets.token_hex(4)}"
    trouble: MailstackError | None = None
    try:
        try:
            lab.up(lab.Request(name, tuple(overlays), keep=True, ttl=None if keep else LIFE_SECONDS), progress)
        except (InputError, EngineError, Interrupted):
            raise
        except MailstackError as error:
            states = Engine().services(compose.project_name(name))
            if not any(state.state == "running" for state in states):
                raise
            trouble = error
        yield RunningLab(name), trouble
    finally:
        if keep:
            progress(f"the lab is kept: mailstack down -n {name} removes it")
        else:
            down.down(name, progress)


def _facts(scene: Scene) -> Json:
    """Versions of everything that took part."""
    engine = scene.engine.version()
    runner = Local()
    return {
        "mailstack": __version__,
        "engine": str(engine.get("Version", "")),
        "compose": ".".join(map(str, compose.version_of(runner, compose.find(runner)))),
        "host": f"{engine.get('Os', '')} {engine.get('KernelVersion', '')} {engine.get('Arch', '')}".strip(),
    }
