"""The experiment from beginning to end: a lab of its own, every step, the document, and the lab's removal."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mailstack.engine import projects
from mailstack.engine.engine import Engine
from mailstack.errors import EngineError, InputError, MailstackError
from mailstack.experiment import first_mail, machine, mailbox, models, queue, roles, settings, talk, theory
from mailstack.experiment.document import Performance, Watch, perform_steps, performance
from mailstack.experiment.scene import TTL_SECONDS, Scene
from mailstack.experiment.step import Step
from mailstack.lab import down, homes, up
from mailstack.lab.leases import Leases, guard
from mailstack.lab.running import RunningLab
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


def perform(
    engine: Engine, overlays: Sequence[Path], keep: bool, progress: Callable[[str], None], author: str = ""
) -> Performance:
    """Perform the whole experiment. Raises InputError, HostError, Interrupted."""
    watch = Watch()
    with _lab(engine, overlays, keep, progress) as scene:
        outcomes = perform_steps(scene, all_steps(), progress)
        found = performance(scene, outcomes, watch, {"author": author})
    found.document["seconds"] = watch.seconds()  # with the lab's removal
    return found


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
