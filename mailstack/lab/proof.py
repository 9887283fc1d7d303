"""Prove a lab, in threads beside other work: send and read a mail, and see the sender's Postfix listen."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from mailstack.lab.running import RunningLab
from mailstack.lab.service_events import EndedServices, Starts
from mailstack.lab.tools import Tools
from mailstack.model import Countdown
from mailstack.roles import Role
from mailstack.state import LabDirectory, State


@dataclass(frozen=True, slots=True)
class Verified:
    """The mail that proved the lab."""

    message_id: str
    milliseconds: float


class Proof:
    """One proof. It can begin before the services start, be cancelled, and begin again."""

    def __init__(self, tools: Tools, directory: LabDirectory, patience: float, pool: ThreadPoolExecutor) -> None:
        self._tools = tools
        self._directory = directory
        self._pool = pool
        self._countdown = Countdown(patience)
        self._futures: tuple[Future[tuple[str, float]], Future[str]] | None = None

    def begin(self, state: State, starts: Starts, ended_services: EndedServices) -> None:
        """Begin the proof in the background; it waits for the start of the services that it needs."""
        from mailstack.lab import readiness

        self._countdown = Countdown(self._countdown.seconds)
        lab = RunningLab(state.lab, self._tools.engine, directory=self._directory, state=state)

        def started(role: Role) -> None:
            for name in lab.defined.names(role):
                starts.wait(name)

        self._futures = (
            self._pool.submit(self._tools.transaction, lab, self._countdown, ended_services.any, started),
            self._pool.submit(readiness.sender, lab, self._countdown, started),
        )

    @property
    def is_running(self) -> bool:
        """Whether the proof has begun and was not cancelled."""
        return self._futures is not None

    def cancel(self) -> None:
        """Cancel the proof: its threads end at their next look at the deadline."""
        self._countdown.cancel()
        self._futures = None

    def result(self) -> tuple[Verified, str]:
        """Wait for the proof, whose time limit starts now; return the mail and the id of the sender's container.

        Raises CheckFailed, DeadlinePassed.
        """
        assert self._futures
        mail, sender = self._futures
        self._countdown.start()
        return Verified(*mail.result()), sender.result()
