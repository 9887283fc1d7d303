"""Prove a lab that Compose has started; create its containers anew when a lab that was up does not answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from mailstack.config import files
from mailstack.errors import CheckFailed, DeadlinePassed
from mailstack.host import requirements
from mailstack.lab import by_hand
from mailstack.lab.proof import Proof, Verified
from mailstack.lab.running import RunningLab
from mailstack.lab.startup import Startup
from mailstack.lab.steps import ComposeUp, Row
from mailstack.roles import Role

# How long the proof of a lab that was up, and in which nothing was started, may take before its containers are created
# anew, in seconds. It takes a twentieth of it.
_REPAIR_SECONDS = 6.0
# And the proof of these new containers. A tenth of it is enough.
_ANEW_SECONDS = 20.0


class Proving:
    """The proof of an `up`, and the repair when it fails."""

    def __init__(self, startup: Startup, proof: Proof, *, new: bool, patience: float) -> None:
        """`new`: the lab was not up before. `patience`: seconds that a proof may take."""
        self.notes: list[str] = []
        self.changes: list[Row] = []  # what had to be repaired after a first proof
        self._startup = startup
        self._proof = proof
        self._new = new
        self._patience = patience

    def begin(self, patience: float | None = None) -> None:
        """Begin the proof in the background."""
        startup = self._startup
        self._proof.begin(startup.desired.state, startup.starts, startup.ended_services, patience or self._patience)

    def cancel(self) -> None:
        """Cancel the proof."""
        self._proof.cancel()

    def prove(self, lab: RunningLab, pool: ThreadPoolExecutor) -> Verified:
        """Return the mails that prove the lab. Raises CheckFailed, DeadlinePassed; HostError from a repair."""
        tools = self._startup.tools
        tools.progress("sending the mails that prove the lab")
        # Beside the proof, and not before: a container that was started meanwhile has lost what was changed in it.
        look_up = pool.submit(self._changed_by_hand, lab)
        if not self._proof.is_running:
            quick = not (self._new or self._startup.starts.names())
            self.begin(min(_REPAIR_SECONDS, self._patience) if quick else None)
        try:
            return self._result(look_up)
        except (CheckFailed, DeadlinePassed) as error:
            if edited := look_up.result():
                error.remedy = f"changed by hand: {by_hand.described(edited)}; `{lab.line('up', '--reset')}` undoes it"
            if self._new or edited or requirements.disk_is_full(tools.engine):
                raise
        tools.progress("the lab does not answer as it should: creating its containers anew")
        self.cancel()
        services = tuple(self._startup.desired.document["services"])
        self.changes.append(Row("recreate containers", services, "the lab did not answer as it should"))
        self._startup.run(ComposeUp("the lab did not answer as it should", services, anew=True), self.cancel)
        self.begin(min(_ANEW_SECONDS, self._patience))
        try:
            return self._result(pool.submit(dict))
        except (CheckFailed, DeadlinePassed) as error:
            error.remedy = error.remedy or (
                f"`{lab.line('down')}`, then `{lab.line('up')}` make the lab anew, without its mail"
            )
            raise

    def _changed_by_hand(self, lab: RunningLab) -> dict[str, list[str]]:
        """Return what was changed by hand in a lab that was up, and note them; see `by_hand`."""
        edited = {} if self._new else by_hand.edited(lab, lab.services())
        if edited:
            reset = lab.line("up", "--reset")
            self.notes.append(f"changed by hand, and kept: {by_hand.described(edited)}; `{reset}` undoes it")
        return edited

    def _result(self, edited: Future[dict[str, list[str]]]) -> Verified:
        """Return the mails of the proof. The one from a sender that was changed by hand need not arrive."""
        with self.with_logs():
            submitted = self._proof.submitted()
            try:
                verified = replace(submitted, relayed=self._proof.relayed())
                edited.result()
                return verified
            except (CheckFailed, DeadlinePassed) as error:
                if self._startup.desired.lab.name(Role.SENDER) not in edited.result():
                    raise
                self.notes.append(f"not proven: {error.whole()}")
                return submitted

    @contextlib.contextmanager
    def with_logs(self) -> Iterator[None]:
        """Add the servers' logs to an error, without secrets: an outside relay may have repeated one."""
        try:
            yield
        except (CheckFailed, DeadlinePassed) as error:
            clean, ended = files.blotter(self._startup.directory.files).clean, self._startup.ended_services
            error.message = clean(error.message) + ended.summary()
            error.details = clean("\n".join(filter(None, (error.details, ended.logs() or ended.all_logs()))))
            raise
