"""The experiment on a student's own running lab: what can be performed there, without a change of its configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from mailstack.checks.client import rows
from mailstack.engine import projects
from mailstack.engine.engine import Engine
from mailstack.errors import MailstackError
from mailstack.experiment import (
    first_mail,
    left_out,
    machine,
    mailbox,
    models,
    own_settings,
    queue,
    roles,
    talk,
    theory,
)
from mailstack.experiment.document import Performance, Watch, perform_steps, performance
from mailstack.experiment.own_scene import OwnScene
from mailstack.experiment.step import Step
from mailstack.lab import changes, finishing, healing
from mailstack.lab.running import RunningLab
from mailstack.model import Json

# The steps after the rows of the settings, in the experiment's order.
_BEFORE = ("lab", "install")
AFTER = (
    *("send", "tls-and-sasl", "arrive", "answer"),
    *("parts", "end-to-end", "store-and-forward", "queue", "dialogue", "message", "mime", "receiving", "hops"),
    "roles",
)
# Steps with other conditions than in a lab of the experiment's own.
_NEEDS = {
    "send": ("main.cf", "postfix", "credentials"),
    "mime": ("send",),
    "dialogue": ("send",),
    "roles": ("main.cf",),
}


def perform_on(engine: Engine, name: str, author: str, progress: Callable[[str], None]) -> Performance:
    """Perform the experiment on a lab that is up. Raises InputError, HostError, Interrupted."""
    watch = Watch()
    lab = RunningLab(name, engine)
    finishing.finish(lab, progress)
    progress("looking at the settings in effect")
    scene = OwnScene(lab)
    steps, not_performed = steps_on(scene)
    # One step stops the provider's Postfix for a moment: after an interruption, the next `up` starts it.
    with changes.changing(lab.directory.path, "experiment", scene.mark):
        try:
            outcomes = perform_steps(scene, steps, progress)
            whose = {
                "author": author,
                "lab": identity(lab),
                "settings": settings(scene),
                "configuration": scene.facts.configured,
                "left_out": not_performed,
            }
            return performance(scene, outcomes, watch, whose)
        finally:
            with contextlib.suppress(MailstackError):
                healing.remove_mails(lab, scene.mark)


def steps_on(scene: OwnScene) -> tuple[list[Step], list[Json]]:
    """Return the steps that can be performed on a lab, and the others, each with the reason."""
    modules = (machine, first_mail, theory, models, queue, talk, mailbox, roles)
    known = {step.id: step for module in modules for step in module.steps.all}
    reasons = left_out.reasons(scene.facts, scene.lab.line("dialogue"))
    known["lab"] = replace(
        known["lab"],
        title="The lab is up",
        row="The lab of the student.",
        done="Looked at the services of the lab.",
        expected="All of them run.",
    )
    chosen = [
        *(known[id] for id in _BEFORE),
        *own_settings.steps(scene.facts),
        *(replace(known[id], needs=_NEEDS.get(id, known[id].needs)) for id in AFTER if id not in reasons),
    ]
    return chosen, [{"id": id, "title": known[id].title, "reason": why} for id, why in reasons.items()]


def settings(scene: OwnScene) -> list[Json]:
    """Return the rows of the course's main.cf with their verdicts."""
    return [judged.json() | {"step": own_settings.step_id(judged.row)} for judged in rows.judged(scene.facts)]


def identity(lab: RunningLab) -> Json:
    """Return what tells this lab from every other one: a report that was copied has the same."""
    return {
        "name": lab.name,
        "project": projects.project_name(lab.name),
        "owner": lab.state.owner,
        "engine": lab.engine.identity,
        "containers": {state.name: state.container[:12] for state in lab.services()},
    }
