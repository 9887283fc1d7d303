"""Carry out the plan of an `up`, step by step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from mailstack.config import files
from mailstack.engine import compose
from mailstack.errors import CheckFailed, DeadlinePassed
from mailstack.lab import claims, plan
from mailstack.lab.observation import Observation
from mailstack.lab.plan import Desired
from mailstack.lab.proof import Proof, Verified
from mailstack.lab.request import RelayFiles
from mailstack.lab.service_events import Starts
from mailstack.lab.startup import UP_SECONDS, Startup, forward
from mailstack.lab.steps import (
    BuildImages,
    ClaimName,
    ComposeUp,
    ForwardPorts,
    LogIn,
    MakeDirectory,
    Plan,
    Prove,
    Record,
    Restart,
    Step,
    WriteFiles,
)
from mailstack.lab.tools import Tools
from mailstack.model import Deadline
from mailstack.runner.local import run_checked
from mailstack.state import LabDirectory


class Stopwatch:
    """The duration of each part of an `up`, in seconds."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.seconds: dict[str, float] = {}

    def done(self, part: str) -> None:
        """End a part of the work: add the time since the last call to its duration."""
        spent = time.monotonic() - self._started - sum(self.seconds.values())
        self.seconds[part] = self.seconds.get(part, 0.0) + spent


class Execution:
    """One run of the plan of an `up`."""

    def __init__(
        self,
        tools: Tools,
        directory: LabDirectory,
        desired: Desired,
        seen: Observation,
        relay_files: RelayFiles,
        patience: float,
        pool: ThreadPoolExecutor,
        stopwatch: Stopwatch,
    ) -> None:
        self.starts = Starts(compose.project_name(directory.name))
        self.proof = Proof(tools, directory, patience, pool)
        self._tools = tools
        self._directory = directory
        self._relay_files = relay_files
        self._pool = pool
        self._stopwatch = stopwatch
        self._startup = Startup(tools, directory, desired, seen, self.starts)
        self._name_claim: Future[str] | None = None
        self._warm: Future[None] | None = None
        self._verified: Verified | None = None
        self._sender = ""

    @property
    def desired(self) -> Desired:
        """The lab, with its present ports and subnets: they change when another process takes them."""
        return self._startup.desired

    def run(self, steps: Plan) -> Verified:
        """Carry out the plan; return the mail that proved the lab. Raises MailstackError, from any step."""
        proofs = [step for step in steps.steps if isinstance(step, Prove)]
        try:
            for step in steps.steps:
                if isinstance(step, ComposeUp):
                    self._before_compose()
                    if any(each.beside for each in proofs):
                        # No older server answers at the lab's ports: begin the proof while Compose runs.
                        self.proof.begin(self.desired.state, self.starts, self._startup.ended_services)
                self._perform(step)
        finally:
            self.starts.finish()
        assert self._verified
        return self._verified

    def _perform(self, step: Step) -> None:
        match step:
            case MakeDirectory():
                self._directory.make()
            case Record():
                self._record(step)
            case ClaimName():
                self._name_claim = self._claim()
            case WriteFiles():
                files.write(self._directory.files, {name: self.desired.texts[name] for name in step.names})
                self._tools.target.hand_over(self._directory.files)
            case ForwardPorts():
                self._settle_name()
                forward(self._tools.target, self.desired.state)
            case BuildImages():
                self._startup.build(step)
            case ComposeUp():
                self._startup.run(step, self.proof.cancel)
            case Restart():
                self._restart(step)
            case Prove():
                self._prove()
            case LogIn():
                self._log_in()

    def _record(self, step: Record) -> None:
        if self._verified:  # its ports may differ from the planned ones
            self._directory.save(replace(self.desired.state, stays=step.state.stays))
        else:
            self._directory.make()
            self._directory.save(step.state)

    def _claim(self) -> Future[str] | None:
        desired = self.desired
        volume = claims.name_volume(compose.project_name(desired.state.lab), desired.document)
        return self._pool.submit(self._tools.engine.claim, *volume) if volume else None

    def _settle_name(self) -> None:
        """Wait for the claim of the lab's name. Raises InputError when another owner has claimed it meanwhile."""
        if self._name_claim:
            plan.refuse_others(self.desired.state, {self._name_claim.result()})

    def _before_compose(self) -> None:
        self._settle_name()
        self._stopwatch.done("files")
        self._tools.progress("starting the containers")
        self._warm = self._pool.submit(_warm_up)

    def _restart(self, step: Restart) -> None:
        self._tools.progress(f"starting {', '.join(step.names)} again with the changed definition")
        run_checked(self._tools.runner, self._startup.compose.restart(step.names), deadline=Deadline.after(UP_SECONDS))

    def _prove(self) -> None:
        self.starts.finish()
        self._stopwatch.done("compose")
        if self._warm:
            self._warm.result()
        self._tools.progress("sending the mail that proves the lab")
        if not self.proof.is_running:
            self.proof.begin(self.desired.state, self.starts, self._startup.ended_services)
        with self._with_logs():
            self._verified, self._sender = self.proof.result()
        self._stopwatch.done("ready")

    def _log_in(self) -> None:
        from mailstack.lab import relay_login

        relay = self.desired.lab.relay
        assert relay
        assert self._relay_files.credentials
        self._tools.progress(f"logging in to {relay.host}:{relay.port}")
        with self._with_logs():
            relay_login.log_in(self._tools.engine, self._sender, relay, self._relay_files.credentials)
        self._stopwatch.done("ready")

    @contextlib.contextmanager
    def _with_logs(self) -> Iterator[None]:
        """Add the servers' logs to an error, without secrets: an outside relay may have repeated one."""
        try:
            yield
        except (CheckFailed, DeadlinePassed) as error:
            clean = files.blotter(self._directory.files).clean
            error.message = clean(error.message) + self._startup.ended_services.summary()
            logs = self._startup.ended_services.logs() or self._startup.ended_services.all_logs()
            error.details = clean("\n".join(filter(None, (error.details, logs))))
            raise


def _warm_up() -> None:
    """Import the modules that the proof needs, while Compose runs."""
    import email.message
    import smtplib

    import imap_tools

    del email, smtplib, imap_tools
