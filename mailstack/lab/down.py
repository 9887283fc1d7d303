"""Remove a lab: everything that carries its labels, and its secrets. Observe, plan, carry out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

from mailstack import state
from mailstack.engine import compose, projects
from mailstack.engine.engine import Engine
from mailstack.errors import DeadlinePassed, EngineError, HostError, InputError, Interrupted
from mailstack.lab import elsewhere, tools
from mailstack.lab.leases import Leases, UpGuard
from mailstack.lab.remains import Remains, observe_remains, plan_down
from mailstack.lab.steps import ComposeDown, Plan, RemoveDirectory, RemoveObjects
from mailstack.lab.tools import Tools
from mailstack.model import Deadline, Progress
from mailstack.runner.local import last_lines
from mailstack.state import LOCK_SECONDS, LabDirectory

# Time limit for a removal, in seconds: many times what a slow machine needs.
DOWN_SECONDS = 60.0
# How long to wait, in seconds, for an object that a process requested from the engine before it ended. The request may
# never have arrived.
LATE_SECONDS = 3.0


def down(
    engine: Engine,
    name: str,
    progress: Progress,
    *,
    condition: Callable[[], bool] = lambda: True,
    patience: float = LOCK_SECONDS,
    make_lock: bool = True,
    using: Tools | None = None,
) -> bool:
    """Remove a lab of this user with everything in it; return whether there was anything to remove.

    Works from labels alone: also for a lab whose controller was killed, or whose directory is gone. When a signal
    interrupts it, it finishes the removal and then raises Interrupted. Waits `patience`
    seconds for the lab's lock, then calls `condition`, and removes nothing when that returns False. Raises
    FileNotFoundError without `make_lock` when there is no lock file: then no command has worked on the lab. Raises
    InputError when the lab is another owner's, DeadlinePassed, HostError.
    """
    state.check_name(name)
    with_tools = using or tools.of(engine, progress)
    directory = with_tools.directory(name)
    with directory.locked(
        Deadline.after(patience), lambda: progress(f"waiting for another command on lab “{name}”"), make=make_lock
    ) as lock:
        if not condition():
            return False
        seen = observe_remains(with_tools, directory)
        if seen.any:
            progress(f"removing lab “{name}”")
        if refusal := _other_owners_error(with_tools, seen):
            if seen.state is None or seen.state.owner == state.owner():
                directory.remove()
            raise refusal
        with UpGuard(with_tools.target, directory.home, name, with_tools.runner) as watch:
            # The guard finishes the removal if this process is killed, or if the engine goes away.
            watch.needed = True
            with contextlib.suppress(HostError):  # go on when shared memory is full: the removal frees some
                if seen.state:
                    directory.save(dataclasses.replace(seen.state, stays=False))
            try:
                _execute(with_tools.holding(lock), directory, seen)
            except Interrupted:
                progress("finishing the removal")
                remove(with_tools.holding(lock), directory)
                watch.needed = False
                raise
            watch.needed = False
        Leases(directory.home, name).forget()
        return seen.any


def dry_run(engine: Engine, name: str, progress: Progress, using: Tools | None = None) -> Plan:
    """Return the plan of `down`; change nothing. Raises InputError, EngineError."""
    state.check_name(name)
    with_tools = using or tools.of(engine, progress)
    seen = observe_remains(with_tools, with_tools.directory(name))
    if refusal := _other_owners_error(with_tools, seen):
        raise refusal
    return plan_down(seen, state.owner())


def dry_run_several(engine: Engine, progress: Progress, *, stale: bool, using: Tools | None = None) -> list[Plan]:
    """Return the plans of `down` for all labs of this user, or only for `stale` ones."""
    with_tools = using or tools.of(engine, progress)
    plans = []
    for name in own_labs(with_tools):
        why = staleness(name, with_tools) if stale else ""
        if why or not stale:
            with contextlib.suppress(InputError):  # the name is another user's by now
                plans.append(dataclasses.replace(dry_run(engine, name, progress, with_tools), why=why))
    return plans


def _other_owners_error(with_tools: Tools, seen: Remains) -> InputError | None:
    """Return the error for a lab that belongs only to other owners on this engine; None otherwise."""
    owners = seen.inventory.owners()
    if not owners or state.owner() in owners:
        return None
    return InputError(
        f"the lab “{seen.name}” on this engine belongs to {', '.join(sorted(owners))}",
        remedy=f"{with_tools.target.line('down', '--all')} removes your own",
    )


def own_labs(with_tools: Tools) -> list[str]:
    """Return the names of this user's labs: those on the engine, and those with files in the home."""
    names = set(with_tools.engine.labs(state.owner()))
    home = with_tools.home
    for name in {*home.labs(), *home.files(".lock"), *home.files(".users")}:
        record = LabDirectory(home, name).load()
        if record is None or record.owner == state.owner():
            names.add(name)
    return sorted(names)


def remove_all(engine: Engine, progress: Progress, using: Tools | None = None) -> list[str]:
    """Remove all labs of this user; return the names of those removed."""
    with_tools = using or tools.of(engine, progress)
    removed = []
    for name in own_labs(with_tools):
        with contextlib.suppress(InputError):  # the name is another user's by now
            if down(engine, name, progress, using=with_tools):
                removed.append(name)
    return removed


def remove_stale(engine: Engine, progress: Progress, using: Tools | None = None) -> list[str]:
    """Remove the stale labs of this user on this engine; return their names.

    A lab is stale when it has expired; when its `up`, `down` or lease holders were killed, and its guard too; or when
    only its files, or only its objects on the engine, are left. A lab on which another command works is skipped.
    """
    with_tools = using or tools.of(engine, progress)
    removed = []
    for name in own_labs(with_tools):
        # Another command works on it, or the name is another user's by now.
        with contextlib.suppress(DeadlinePassed, InputError):
            stale = functools.partial(_is_stale, name, with_tools)
            if down(engine, name, progress, condition=stale, patience=0, using=with_tools):
                removed.append(name)
    return removed


def _is_stale(name: str, with_tools: Tools) -> bool:
    return bool(staleness(name, with_tools))


def staleness(name: str, with_tools: Tools) -> str:
    """Return why a lab is stale, or ""; see `remove_stale`. The caller holds the lab's lock, except for a dry run."""
    record = with_tools.directory(name).load()
    expires = with_tools.engine.expires(name, state.owner())
    in_use = Leases(with_tools.home, name).is_held()
    if expires is None:
        return "" if in_use else "the engine has nothing of it"
    if record is None and not in_use and _has_lost_its_files(name, with_tools):
        return "its files are gone"
    if expires.isdigit() and int(expires) <= time.time():
        return "its time has passed"
    if in_use is False:
        return "whoever used it has ended"
    return "its `up` or `down` was killed" if record is not None and not record.stays else ""


def _has_lost_its_files(name: str, with_tools: Tools) -> bool:
    """Return whether the files of this user's lab are nowhere, although the engine has the lab.

    Only for this machine's engine: the files of a lab on another host may be on the machine that brought it up.
    """
    directory = with_tools.directory(name)
    if not with_tools.target.shares_kernel or directory.is_made():
        return False
    inventory = with_tools.engine.inventory(name)
    # Its containers say where its files were.
    return bool(inventory.containers) and not elsewhere.find(with_tools.target, inventory, directory)


def remove(with_tools: Tools, directory: LabDirectory, late: frozenset[str] = frozenset()) -> None:
    """Remove a lab whose lock the caller holds: first with Compose, then the rest by its labels, the secrets last.

    `late` names objects that may still appear: a Compose that was ended had requested them, and the engine goes on to
    create them. Raises HostError.
    """
    _execute(with_tools, directory, observe_remains(with_tools, directory, late))


def _execute(with_tools: Tools, directory: LabDirectory, seen: Remains) -> None:
    steps = plan_down(seen, state.owner()).steps
    binary = compose.find(with_tools.runner) if any(isinstance(step, ComposeDown) for step in steps) else None
    deadline, output = Deadline.after(DOWN_SECONDS), ""
    known = directory.load()
    try:
        for step in steps:
            match step:
                case ComposeDown():
                    assert binary
                    project = projects.project_name(seen.name)
                    bare = compose.Compose(binary, project, (), with_tools.target.environment)
                    output = with_tools.runner.run(bare.down(), deadline=deadline).stderr
                case RemoveObjects():
                    late = compose.objects_in_creation(output.splitlines(), seen.late)
                    _remove_objects(with_tools, seen.name, late, deadline, output)
    except BaseException:
        directory.remove_secrets()  # the record stays: the guard and the next `down` go on from there
        raise
    directory.remove()
    for step in steps:
        if isinstance(step, RemoveDirectory) and step.names != (str(directory.path),):
            elsewhere.remove(Path(step.names[0]), directory)
    with_tools.target.forget(directory.name, known.ports.values() if known else ())


def _remove_objects(with_tools: Tools, name: str, late: frozenset[str], deadline: Deadline, output: str) -> None:
    """Remove objects with the lab's labels until none is left or expected; `output` is the output of Compose before."""
    engine, grace = with_tools.engine, Deadline.after(LATE_SECONDS)
    while (left := engine.leftovers(name, state.owner())) or (late and not grace.passed()):
        late -= set(left)  # these have appeared
        if left and deadline.passed():
            raise EngineError(
                f"lab “{name}” could not be removed completely: {', '.join(left)} is still there",
                details=last_lines(output, 5),
            )
        for thing in left:
            with contextlib.suppress(EngineError):
                # A network in use, for example: its container goes in this round, the network in the next.
                engine.remove(thing)
        time.sleep(0.02)  # the engine has no event for an object that becomes removable
