"""The tools of `up` and `down`: an engine, a runner of commands, and the home of the labs on that engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mailstack.engine.engine import Engine, own_engine
from mailstack.lab import homes
from mailstack.model import Deadline, Progress
from mailstack.roles import Role
from mailstack.runner.local import Local, Runner
from mailstack.state import Home, LabDirectory
from mailstack.target.target import Target

if TYPE_CHECKING:
    from mailstack.lab.running import RunningLab

# Sends a mail across a lab and reads it before a deadline; returns its Message-ID and its time in milliseconds. The
# third argument returns whether a service has ended, the fourth blocks until one has been started; see
# `readiness.transaction`.
Transaction = Callable[["RunningLab", Deadline, Callable[[], bool], Callable[[Role], None]], tuple[str, float]]


def _by_mail(
    lab: RunningLab, deadline: Deadline, dead: Callable[[], bool], started: Callable[[Role], None]
) -> tuple[str, float]:
    from mailstack.lab import readiness  # imported while Compose starts the containers

    return readiness.transaction(lab, deadline, dead, started)


def _by_relay(
    lab: RunningLab, deadline: Deadline, dead: Callable[[], bool], started: Callable[[Role], None]
) -> tuple[str, float]:
    from mailstack.lab import readiness

    return readiness.relayed(lab, deadline, dead, started)


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of a command; tests pass others."""

    engine: Engine
    runner: Runner
    home: Home
    progress: Progress
    own_engine: Engine | None = None  # this machine's engine, when `engine` is another host's; it may not exist
    transaction: Transaction = _by_mail
    relayed: Transaction = _by_relay  # the same from the sender, through its relay host in the lab

    @property
    def target(self) -> Target:
        """The engine's Docker host."""
        return self.engine.target

    def directory(self, lab: str) -> LabDirectory:
        """Return the directory of a lab. Raises InputError for an invalid lab name."""
        return LabDirectory(self.home, lab)

    def holding(self, lock: int) -> Tools:
        """Return the same tools with a runner whose child processes inherit a lab's lock (a file descriptor)."""
        return replace(self, runner=self.runner.holding(lock))


def of(engine: Engine, progress: Progress) -> Tools:
    """Return the tools for the labs on an engine. Raises EngineError when it does not answer."""
    return Tools(engine, Local(), homes.current(engine), progress, own_engine(engine.target))
