"""The proof of a lab: a mail is sent and read, and the sender's Postfix listens, in threads beside other work."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from mailstack.lab.running import RunningLab
from mailstack.lab.service_events import Endings, Starts
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
    """One proof; it can be begun before the services are started, and cancelled, and then begun again."""

    def __init__(self, tools: Tools, directory: LabDirectory, patience: float, pool: ThreadPoolExecutor) -> None:
        self._tools = tools
        self._directory = directory
        self._pool = pool
        self._countdown = Countdown(patience)
        self._begun: tuple[Future[tuple[str, float]], Future[str]] | None = None

    def begin(self, state: State, starts: Starts, endings: Endings) -> None:
        """Prove the lab as soon as its services have been started, beside whatever else is done."""
        from mailstack.lab import readiness

        self._countdown = Countdown(self._countdown.seconds)
        lab = RunningLab(state.lab, self._tools.engine, directory=self._directory, state=state)

        def started(role: Role) -> None:
            for name in lab.defined.names(role):
                starts.wait(name)

        self._begun = (
            self._pool.submit(self._tools.transaction, lab, self._countdown, endings.any, started),
            self._pool.submit(readiness.sender, lab, self._countdown, started),
        )

    @property
    def begun(self) -> bool:
        """Whether it has been begun, and not been cancelled."""
        return self._begun is not None

    def cancel(self) -> None:
        """End what was begun, as soon as that looks at its deadline."""
        self._countdown.cancel()
        self._begun = None

    def result(self) -> tuple[Verified, str]:
        """Wait for the proof; its time counts from now. Gives the mail, and the id of the sender's container.

        Raises CheckFailed, DeadlinePassed.
        """
        assert self._begun
        mail, sender = self._begun
        self._countdown.start()
        return Verified(*mail.result()), sender.result()
