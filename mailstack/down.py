"""The end of a lab: everything that carries its labels, and its secrets."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

from mailstack import compose, elsewhere, home, state
from mailstack.engine import Engine
from mailstack.errors import DeadlinePassed, EngineError, HostError, InputError
from mailstack.model import Deadline
from mailstack.runner import Local, Runner, last_lines
from mailstack.users import Users, Watch

Progress = Callable[[str], None]

# How long it may take, in seconds: many times what a slow machine needs.
DOWN_SECONDS = 60.0
LOCK_SECONDS = 60.0
# How long the engine may take to make what it was asked for by somebody who has gone; it may never have been asked.
LATE_SECONDS = 3.0


def down(
    engine: Engine,
    name: str,
    progress: Progress,
    *,
    wanted: Callable[[], bool] = lambda: True,
    patience: float = LOCK_SECONDS,
    make_lock: bool = True,
) -> bool:
    """Remove a lab of this user with all it has; say whether there was anything.

    Works from labels alone: also for a lab whose controller was killed, or whose directory is gone. Whether it is
    `wanted` is asked when nobody else works on the lab any more, for which it waits `patience` seconds. Raises
    FileNotFoundError when there is no lock, and none is to be made: then nobody has worked on the lab.
    """
    directory = home.directory(engine, name)
    here = directory.home
    with directory.locked(
        Deadline.after(patience), lambda: progress(f"waiting for another command on lab “{name}”"), make=make_lock
    ) as lock:
        if not wanted():
            return False
        owners = engine.owners(name)
        there = directory.is_made() or state.owner() in owners
        if there:
            progress(f"removing lab “{name}”")
        if owners and state.owner() not in owners:
            if (found := directory.load()) is None or found.owner == state.owner():
                directory.remove()
            raise InputError(
                f"the lab “{name}” on this engine belongs to {', '.join(sorted(owners))}",
                remedy=f"{engine.target.line('down', '--all')} removes your own",
            )
        watch = Watch(engine.target, here, name, Local())  # finishes this if it is killed
        try:
            with contextlib.suppress(HostError):  # shared memory that is full is a reason to go on
                if found := directory.load():
                    directory.save(dataclasses.replace(found, stays=False))
            remove(directory, Local((lock,)), engine, owners)
        finally:
            watch.dismiss()
        Users(here, name).forget()
        return there


def mine(engine: Engine) -> list[str]:
    """The names of this user's labs: those on the engine, and those that have a directory."""
    found = set(engine.labs(state.owner()))
    here = home.current(engine)
    for name in {*here.labs(), *here.files(".lock"), *here.files(".users")}:
        kept = state.LabDirectory(here, name).load()
        if kept is None or kept.owner == state.owner():
            found.add(name)
    return sorted(found)


def everything(engine: Engine, progress: Progress) -> list[str]:
    """Remove this user's labs; the names of what was removed."""
    removed = []
    for name in mine(engine):
        with contextlib.suppress(InputError):  # the name is somebody else's by now
            if down(engine, name, progress):
                removed.append(name)
    return removed


def stale(engine: Engine, progress: Progress) -> list[str]:
    """Remove what has been left of this user's labs, on this engine; the names of what was removed.

    That is a lab whose time has passed; one whose `up`, `down` or users were killed, and their guard as well; and files
    of a lab that has nothing on the engine. A lab that somebody is working on is not looked at.
    """
    removed = []
    for name in mine(engine):
        # Somebody works on it; or the name is somebody else's by now.
        with contextlib.suppress(DeadlinePassed, InputError):
            if down(engine, name, progress, wanted=functools.partial(_is_stale, name, engine), patience=0):
                removed.append(name)
    return removed


def _is_stale(name: str, engine: Engine) -> bool:
    """See `stale`; asked by who holds the lab's lock."""
    here = home.current(engine)
    found = state.LabDirectory(here, name).load()
    expires = engine.expires(name, state.owner())
    used = Users(here, name).used()
    if expires is None:
        return not used
    if expires.isdigit() and int(expires) <= time.time():
        return True
    return used is False or (found is not None and not found.stays)


def remove(
    directory: state.LabDirectory,
    runner: Runner,
    engine: Engine,
    owners: set[str] | None = None,
    late: frozenset[str] = frozenset(),
) -> None:
    """Everything of the lab: Compose takes its project down; what it left, by its labels; the secrets last.

    `late` may still come: a Compose that was ended had asked the engine for it, which goes on with it all the same.
    Compose does not know owners: it is called only where all that the engine has by this name is of one, this user.
    """
    bare = compose.Compose(compose.find(runner), compose.project_name(directory.name), (), engine.target.environment)
    deadline = Deadline.after(DOWN_SECONDS)
    mine = state.owner()
    owners = engine.owners(directory.name) if owners is None else owners
    others: list[Path] = []
    try:
        others = elsewhere.find(engine, directory) if mine in owners else []
        said = ""
        if owners == {mine}:
            said = runner.run(bare.down(), deadline=deadline).stderr
        late = compose.being_made(said.splitlines(), late)
        coming = Deadline.after(LATE_SECONDS)
        while (left := engine.leftovers(directory.name, mine)) or (late and not coming.passed()):
            late -= set(left)  # it has come
            if left and deadline.passed():
                raise EngineError(
                    f"lab “{directory.name}” could not be removed whole: {', '.join(left)} is still there",
                    details=last_lines(said, 5),
                )
            for thing in left:
                with contextlib.suppress(EngineError):
                    # A network in use, say: its container goes in this round, the network in the next.
                    engine.remove(thing)
            time.sleep(0.02)  # the engine has no event for "now it can be removed"
    finally:
        # Whatever the engine said: no secret stays behind, and `down` finds the rest by its labels.
        known = directory.load()
        directory.remove()
        for other in others:
            elsewhere.remove(other, directory)
        engine.target.forget(directory.name, known.ports.values() if known else ())
