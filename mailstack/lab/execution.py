"""Carry out the plan of an `up`, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from mailstack.config import files
from mailstack.engine import projects
from mailstack.lab import claims, healing, plan
from mailstack.lab.changes import Change
from mailstack.lab.observation import Observation
from mailstack.lab.plan import Desired
from mailstack.lab.proof import Proof, Verified
from mailstack.lab.proving import Proving
from mailstack.lab.request import RelayFiles
from mailstack.lab.running import RunningLab
from mailstack.lab.service_events import Starts
from mailstack.lab.startup import UP_SECONDS, Startup, forward
from mailstack.lab.steps import (
    BuildImages,
    ClaimName,
    CleanUp,
    ComposeUp,
    ForwardPorts,
    LogIn,
    MakeDirectory,
    Plan,
    Prove,
    Record,
    RemoveContainers,
    RemoveVolumes,
    Restart,
    Step,
    UndoChanges,
    Unpause,
    WriteFiles,
)
from mailstack.lab.tools import Tools
from mailstack.model import Deadline
from mailstack.roles import Role
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
        change: Change,
        pool: ThreadPoolExecutor,
        stopwatch: Stopwatch,
        *,
        patience: float,
    ) -> None:
        self.starts = Starts(projects.project_name(directory.name))
        self.touched = False  # whether a container may differ from what it was before
        self._tools = tools
        self._directory = directory
        self._relay_files = relay_files
        self._change = change
        self._pool = pool
        self._seen = seen
        self._stopwatch = stopwatch
        self._startup = Startup(tools, directory, desired, seen, self.starts)
        self.proving = Proving(self._startup, Proof(tools, directory, pool), new=seen.is_new, patience=patience)
        self._name_claim: Future[str] | None = None
        self._warm: Future[None] | None = None
        self._verified: Verified | None = None

    @property
    def desired(self) -> Desired:
        """The lab, with its present ports and subnets: they change when another process takes them."""
        return self._startup.desired

    @property
    def _lab(self) -> RunningLab:
        return RunningLab(self._directory.name, self._tools.engine, directory=self._directory, state=self.desired.state)

    def run(self, steps: Plan) -> Verified:
        """Carry out the plan; return the mails that proved the lab. Raises MailstackError, from any step."""
        proofs = [step for step in steps.steps if isinstance(step, Prove)]
        try:
            for step in steps.steps:
                if isinstance(step, ComposeUp):
                    self._before_compose()
                    if any(each.beside for each in proofs):
                        # No older server answers at the lab's ports: begin the proof while Compose runs.
                        self.proving.begin()
                self._perform(step)
        finally:
            self.starts.finish()
        assert self._verified
        return self._verified

    def _perform(self, step: Step) -> None:
        perform: dict[type[Step], Callable[[Any], object]] = {
            MakeDirectory: lambda step: self._directory.make(),
            Record: self._record,
            ClaimName: self._claim,
            UndoChanges: self._undo_changes,
            WriteFiles: self._write_files,
            ForwardPorts: self._forward_ports,
            BuildImages: self._startup.build,
            Unpause: self._unpause,
            RemoveContainers: self._remove_containers,
            RemoveVolumes: self._remove_volumes,
            ComposeUp: self._compose_up,
            Restart: self._restart,
            Prove: self._prove,
            CleanUp: lambda step: healing.clean_up(self._lab, self._seen.unfinished),
            LogIn: self._log_in,
        }
        perform[type(step)](step)

    def _record(self, step: Record) -> None:
        if self._verified:  # its ports may differ from the planned ones
            self._directory.save(replace(self.desired.state, stays=step.state.stays))
        else:
            self._directory.make()
            self._directory.save(step.state)
            self._change.begin()

    def _claim(self, step: ClaimName) -> None:
        volume = claims.name_volume(projects.project_name(self.desired.state.lab), self.desired.document)
        self._name_claim = self._pool.submit(self._tools.engine.claim, *volume) if volume else None

    def _write_files(self, step: WriteFiles) -> None:
        files.write(self._directory.files, {name: self.desired.texts[name] for name in step.names})
        self._tools.target.hand_over(self._directory.files)

    def _forward_ports(self, step: ForwardPorts) -> None:
        self._settle_name()
        forward(self._tools.target, self.desired.state)

    def _unpause(self, step: Unpause) -> None:
        for container in step.names:
            self._tools.engine.unpause(container)

    def _remove_containers(self, step: RemoveContainers) -> None:
        self.touched = True
        for container in step.names:
            self._tools.engine.remove(f"container {container}")

    def _remove_volumes(self, step: RemoveVolumes) -> None:
        for volume in step.names:
            self._tools.engine.remove(f"volume {volume}")

    def _compose_up(self, step: ComposeUp) -> None:
        before, self.touched = self.touched, True
        self._startup.run(step, self.proving.cancel)
        self.touched = before or bool(self.starts.names())

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
        self._tools.progress(f"restarting {', '.join(step.names)}")
        self.touched = True
        run_checked(self._tools.runner, self._startup.compose.restart(step.names), deadline=Deadline.after(UP_SECONDS))

    def _prove(self, step: Prove) -> None:
        self.starts.finish()
        self._stopwatch.done("compose")
        if self._warm:
            self._warm.result()
        self._verified = self.proving.prove(self._lab, self._pool)
        self._stopwatch.done("ready")

    def _undo_changes(self, step: UndoChanges) -> None:
        addresses = healing.accounts_of(self._lab, self._seen.unfinished)
        self._tools.target.hand_over(self._directory.files, healing.drop_accounts(self._directory, addresses))

    def _log_in(self, step: LogIn) -> None:
        from mailstack.lab import relay_login

        relay = self.desired.lab.relay
        assert relay
        assert self._relay_files.credentials
        self._tools.progress(f"logging in to {relay.host}:{relay.port}")
        with self.proving.with_logs():
            sender = self._lab.one(Role.SENDER).container
            relay_login.log_in(self._tools.engine, sender, relay, self._relay_files.credentials)
        self._stopwatch.done("ready")


def _warm_up() -> None:
    """Import the modules that the proof needs, while Compose runs."""
    import email.message
    import smtplib

    import imap_tools

    del email, smtplib, imap_tools
