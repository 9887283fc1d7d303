"""Bring a lab up: observe, plan, carry out the plan, and roll back when that fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mailstack import state
from mailstack.config import files
from mailstack.engine.engine import Engine
from mailstack.errors import CheckFailed, DeadlinePassed, HostError, MailstackError, Reported
from mailstack.host import requirements
from mailstack.lab import claims, plan, tools
from mailstack.lab.changes import PROOF, PROOF_MARK, Change
from mailstack.lab.down import remove
from mailstack.lab.execution import Execution, Stopwatch
from mailstack.lab.leases import UpGuard
from mailstack.lab.observation import Observation, observe
from mailstack.lab.plan import Desired
from mailstack.lab.proof import Verified
from mailstack.lab.request import RelayFiles, Request, draft, notes, read_relay_files
from mailstack.lab.running import endpoints_json, project
from mailstack.lab.startup import UP_SECONDS
from mailstack.lab.steps import Plan, Row
from mailstack.lab.tools import Tools
from mailstack.model import Deadline, Endpoint, Json, Progress
from mailstack.state import LabDirectory

__all__ = ["Report", "Request", "Verified", "dry_run", "ensure", "up"]

ENSURE_SECONDS = 900.0  # enough for another process's `up` that builds images

_WAITING = "waiting for another command on this lab"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of `up`."""

    lab: str
    services: tuple[str, ...]
    endpoints: Mapping[str, Endpoint]
    ca_file: Path
    accounts: tuple[str, ...]
    verified: Verified
    seconds: Mapping[str, float]  # part of the work, or `total` → duration
    changes: tuple[Row, ...] = ()  # of a lab that was up
    notes: tuple[str, ...] = ()
    blank: bool = False  # the sender is to be configured by hand

    def json(self) -> Json:
        """Return the document of `mailstack up --json`; its shape is in docs/json.md."""
        return {
            "lab": self.lab,
            "services": list(self.services),
            "endpoints": endpoints_json(self.endpoints),
            "ca_file": str(self.ca_file),
            "accounts": list(self.accounts),
            "blank": self.blank,
            "changes": [row.json() for row in self.changes],
            "verified": self.verified.whole_json(),
            "seconds": {part: round(seconds, 3) for part, seconds in self.seconds.items()},
        }


def up(engine: Engine, request: Request, progress: Progress, using: Tools | None = None) -> Report:
    """Bring a lab up to its definition and prove it with two mails; roll back on failure, unless `request.keep`.

        lab.up(engine, lab.Request("mine"), print).endpoints["imaps"].port

    Raises MailstackError.
    """
    report = _up_under_lock(engine, request, progress, using, state.LOCK_SECONDS, lambda: progress(_WAITING))
    assert report is not None
    return report


def ensure(
    engine: Engine,
    request: Request,
    progress: Progress,
    meanwhile: Callable[[], object] = lambda: None,
    using: Tools | None = None,
) -> None:
    """Bring a lab up unless it is up already. When several processes call this at once, one works and the others wait.

    A process that has to wait calls `meanwhile` first. Raises MailstackError.
    """

    def on_wait() -> None:
        progress(_WAITING)
        meanwhile()

    try:
        _up_under_lock(engine, request, progress, using, ENSURE_SECONDS, on_wait, unless_up=True)
    except MailstackError as error:
        raise engine.target.root_cause(error) from None


def dry_run(engine: Engine, request: Request, progress: Progress, using: Tools | None = None) -> Plan:
    """Return the plan of `up`; change nothing. Raises the errors that `up` raises before its first change."""
    state.check_name(request.name)
    with_tools = using or tools.of(engine, progress)
    directory, relay_files = with_tools.directory(request.name), read_relay_files(request)
    with ThreadPoolExecutor(max_workers=3) as pool:
        return _make_plan(with_tools, directory, request, relay_files, pool, in_detail=True)[2]


def _up_under_lock(
    engine: Engine,
    request: Request,
    progress: Progress,
    using: Tools | None,
    patience: float,
    on_wait: Callable[[], None],
    *,
    unless_up: bool = False,
) -> Report | None:
    stopwatch = Stopwatch()
    state.check_name(request.name)
    with_tools = using or tools.of(engine, progress)
    directory = with_tools.directory(request.name)
    relay_files = read_relay_files(request)
    with (
        UpGuard(with_tools.target, directory.home, request.name, with_tools.runner) as watch,
        directory.locked(Deadline.after(patience), on_wait) as lock,
    ):
        if unless_up and (record := directory.load()) is not None and record.stays:
            return None
        return _up(with_tools.holding(lock), directory, request, relay_files, watch, stopwatch)


def _make_plan(
    with_tools: Tools,
    directory: LabDirectory,
    request: Request,
    relay_files: RelayFiles,
    pool: ThreadPoolExecutor,
    *,
    in_detail: bool = False,
) -> tuple[Observation, Desired, Plan]:
    before = directory.load()
    ports = {} if before else claims.allocate_ports(with_tools.target, with_tools.home, request.name)
    first = draft(request, before, ports, with_tools.target.url, time.time())
    with_tools.progress("reading the definition")
    seen = observe(with_tools, directory, first, before, relay_files, pool, in_detail=in_detail)
    desired = plan.desired_lab(first, seen)
    log_in = relay_files.credentials is not None
    return seen, desired, plan.plan_up(desired, seen, log_in=log_in, reset=request.reset and before is not None)


def _up(
    with_tools: Tools,
    directory: LabDirectory,
    request: Request,
    relay_files: RelayFiles,
    watch: UpGuard,
    stopwatch: Stopwatch,
) -> Report:
    with ThreadPoolExecutor(max_workers=4) as pool:
        seen, desired, steps = _make_plan(with_tools, directory, request, relay_files, pool)
        stopwatch.done("definition")
        watch.needed = seen.is_new
        # Of a new lab that is interrupted, mails of its proof may be left, if the next `up` comes before the guard.
        change = Change(directory.path, "up" if seen.state else PROOF, PROOF_MARK)
        execution = Execution(
            with_tools, directory, desired, seen, relay_files, change, pool, stopwatch, patience=request.patience
        )
        try:
            if seen.state:
                change.begin()
            verified = execution.run(steps)
        except BaseException as error:
            execution.proving.cancel()
            if isinstance(error, HostError | DeadlinePassed | CheckFailed):
                error.message += requirements.short_of_disk(with_tools.engine)
            if not request.keep:
                if _roll_back(with_tools, directory, seen, watch, execution):
                    change.end()
                    if seen.state:
                        Change(directory.path, PROOF, PROOF_MARK).begin()  # its mails may still arrive
            elif isinstance(error, Reported):
                error.remedy = error.remedy or f"it was kept: {with_tools.target.line('logs', lab=request.name)}"
            raise
        change.end()
        final = execution.desired.state
        remarks = (*notes(request, seen.state), *execution.proving.notes, requirements.clock(with_tools.target))
        watch.needed = seen.is_new and final.expires != "never"
        return Report(
            lab=final.lab,
            services=tuple(service.name for service in desired.lab.services),
            endpoints={name: Endpoint("127.0.0.1", number) for name, number in final.ports.items()},
            ca_file=directory.ca_file,
            accounts=tuple(desired.lab.addresses()),
            verified=verified,
            seconds={**stopwatch.seconds, "total": sum(stopwatch.seconds.values())},
            changes=() if seen.is_new else steps.changes(execution.proving.changes, execution.starts.names()),
            notes=tuple(filter(None, remarks)),
            blank=desired.lab.blank,
        )


def _roll_back(
    with_tools: Tools, directory: LabDirectory, seen: Observation, watch: UpGuard, execution: Execution
) -> bool:
    """Remove a new lab that did not come up; restore a lab that was up before. Return whether that succeeded."""
    if seen.state is not None:
        return _restore(with_tools, directory, seen.state, seen, touched=execution.touched)
    if not seen.is_new:
        return True  # its record was lost: there is nothing to go back to, and its mail stays
    with_tools.progress("removing what was created")
    with contextlib.suppress(HostError):  # report the first error, not this one
        remove(with_tools, directory, execution.starts.unfinished_objects())
        watch.needed = False
    return True


def _restore(
    with_tools: Tools, directory: LabDirectory, before: state.State, seen: Observation, *, touched: bool
) -> bool:
    with_tools.progress("restoring the previous lab")
    files.restore(directory.files, seen.handed)
    with_tools.target.hand_over(directory.files)
    directory.save(before)
    if not touched:
        return True
    # Create containers anew: the engine may still be stopping old ones for the Compose that was ended.
    compose = project(with_tools.target, with_tools.runner, before, directory)
    result = with_tools.runner.run(compose.up(anew=True), deadline=Deadline.after(UP_SECONDS))
    if result.code != 0:
        repair = with_tools.target.line("up", lab=before.lab)
        with_tools.progress(f"it could not be restored; {repair} repairs it")
    return result.code == 0
