"""Disturb the containers of a lab under load, at moments that a seed determines."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import docker

from mailstack.actions import queues
from mailstack.engine import projects
from mailstack.errors import MailstackError
from mailstack.lab.running import RunningLab
from mailstack.load.ledger import Outcome
from mailstack.load.performance import LoadProgress, perform
from mailstack.load.plan import Plan
from mailstack.model import SERVICES

MAILS = 1000  # of one load; a kill of Postfix ends the connections, and so the load
REST_SECONDS = 0.7  # between two disturbances
LONGEST_SECONDS = 1.5  # of a pause, and of a disconnect


class Disturbance:
    """Kill, pause or disconnect a container, and restore it a while later; called with the progress of a load."""

    def __init__(self, lab: RunningLab, chance: random.Random) -> None:
        self._chance = chance
        self._client = docker.from_env()
        self._lab = lab
        self._restore: Callable[[], object] | None = None
        self._next = time.monotonic() + REST_SECONDS
        self.made: list[str] = []

    def __call__(self, now: LoadProgress) -> None:
        if time.monotonic() < self._next:
            return
        if self._restore:
            self.end()
        else:
            self._begin()

    def end(self) -> None:
        """Restore the disturbed container, and flush the queues."""
        if self._restore:
            self._restore()
            self._restore = None
        self._next = time.monotonic() + REST_SECONDS
        with suppress(MailstackError):  # Postfix has just been started; flushed after the next disturbance
            queues.flush(self._lab.engine, queues.containers(self._lab))

    def _begin(self) -> None:
        kind, service = self._chance.choice(("kill", "pause", "disconnect")), self._chance.choice(SERVICES)
        container = self._client.containers.get(self._lab.service(service).container)
        try:
            self._restore = getattr(self, f"_{kind}")(container)
        except docker.errors.APIError:  # it cannot be paused while the kernel is busy with it: the next time, then
            return
        self.made.append(f"{kind} {service}")
        self._next = time.monotonic() + self._chance.uniform(0.1, LONGEST_SECONDS)

    @staticmethod
    def _kill(container: Any) -> Callable[[], object]:
        container.kill("SIGKILL")
        return container.start  # type: ignore[no-any-return]

    @staticmethod
    def _pause(container: Any) -> Callable[[], object]:
        container.pause()
        return container.unpause  # type: ignore[no-any-return]

    def _disconnect(self, container: Any) -> Callable[[], object]:
        name = f"{projects.project_name(self._lab.name)}_mail"
        settings = container.attrs["NetworkSettings"]["Networks"][name]
        network = self._client.networks.get(name)
        network.disconnect(container, force=True)
        return lambda: network.connect(container, aliases=settings["Aliases"])


def soak(lab: RunningLab, seed: int, wanted: int) -> tuple[list[Outcome], list[str]]:
    """Send loads until `wanted` mails were accepted; return their results, and the disturbances."""
    chance, outcomes, made = random.Random(seed), list[Outcome](), list[str]()
    while sum(len(each.accepted) for each in outcomes) < wanted:
        disturbance = Disturbance(lab, chance)
        plan = Plan(connections=8, messages=MAILS, seconds=None, mailboxes=20, patience=90)
        try:
            outcomes.append(perform(lab, plan, on_progress=disturbance))
        finally:
            disturbance.end()
        made += disturbance.made
    return outcomes, made
