"""Prove a lab with two mails, in threads: one by submission, one from the sender through its relay host."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from mailstack.errors import CheckFailed
from mailstack.host import requirements
from mailstack.lab.changes import PROOF, PROOF_MARK, changing
from mailstack.lab.running import RunningLab
from mailstack.lab.service_events import EndedServices, Starts
from mailstack.lab.tools import Tools
from mailstack.model import Countdown, Deadline, Json
from mailstack.roles import Role
from mailstack.state import LabDirectory, State

PROBE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Verified:
    """The mail by submission, and the one from the sender.

    No mail is sent to a relay host outside, and none from a blank sender, which is configured by hand.
    """

    message_id: str
    milliseconds: float
    relayed: Verified | None = None

    def json(self) -> Json:
        """Return the mail as a JSON document."""
        return {"message_id": self.message_id, "milliseconds": round(self.milliseconds, 1)}

    def whole_json(self) -> Json:
        """Return both mails as a JSON document; see docs/json.md."""
        return self.json() | {"relayed": self.relayed.json() if self.relayed else None}


class Proof:
    """The proof of a lab. It can begin before the services start, be cancelled, and begin again."""

    def __init__(self, tools: Tools, directory: LabDirectory, pool: ThreadPoolExecutor) -> None:
        self._tools = tools
        self._directory = directory
        self._pool = pool
        self._countdown = Countdown(0)
        self._futures: tuple[Future[tuple[str, float]], Future[tuple[str, float] | None]] | None = None

    def begin(self, state: State, starts: Starts, ended: EndedServices, patience: float) -> None:
        """Begin the proof in the background; it waits for the start of the services that it needs.

        Its time limit, `patience` in seconds, starts with the call of `submitted`.
        """
        from mailstack.lab import readiness

        self._countdown = countdown = Countdown(patience)
        lab = RunningLab(state.lab, self._tools.engine, directory=self._directory, state=state)

        def started(role: Role) -> None:
            for name in lab.defined.names(role):
                starts.wait(name)

        def in_vain() -> bool:
            return ended.any() or requirements.disk_is_full(self._tools.engine)

        def relayed() -> tuple[str, float] | None:
            if _is_relayed(lab):
                return self._tools.relayed(lab, countdown, in_vain, started)
            readiness.sender(lab, countdown, started)  # to a relay host outside only the log-in is tried
            return None

        submitted = self._pool.submit(self._tools.transaction, lab, countdown, in_vain, started)
        self._futures = submitted, self._pool.submit(relayed)

    @property
    def is_running(self) -> bool:
        """Whether the proof has begun and was not cancelled."""
        return self._futures is not None

    def cancel(self) -> None:
        """Cancel the proof: its threads end at their next look at the deadline."""
        self._countdown.cancel()
        self._futures = None

    def submitted(self) -> Verified:
        """Wait for the mail by submission; the time limit of both starts now. Raises CheckFailed, DeadlinePassed."""
        assert self._futures
        self._countdown.start()
        return Verified(*self._futures[0].result())

    def relayed(self) -> Verified | None:
        """Wait for the mail from the sender, or for the sender alone. Raises CheckFailed, DeadlinePassed."""
        assert self._futures
        found = self._futures[1].result()
        return Verified(*found) if found else None


def _is_relayed(lab: RunningLab) -> bool:
    """Return whether the proof has a mail from the sender: one that relays to the provider in the lab by definition."""
    return not lab.defined.relay and not lab.defined.blank


def probe(lab: RunningLab) -> Verified:
    """Prove a running lab with both mails, without changing it. Raises CheckFailed, DeadlinePassed."""
    from mailstack.lab import readiness

    if idle := [service.name for service in lab.services_with_missing() if not service.runs]:
        raise CheckFailed(
            f"not running in lab “{lab.name}”: {', '.join(idle)}", remedy=f"`{lab.line('up')}` repairs it"
        )
    deadline, ended = Deadline.after(PROBE_SECONDS), EndedServices(lab.engine, lab.name)
    with changing(lab.directory.path, PROOF, PROOF_MARK), ThreadPoolExecutor(2) as pool:
        submitted = pool.submit(readiness.transaction, lab, deadline, ended.any)
        relayed = pool.submit(readiness.relayed, lab, deadline, ended.any) if _is_relayed(lab) else None
        found = Verified(*submitted.result())
        return replace(found, relayed=Verified(*relayed.result())) if relayed else found
