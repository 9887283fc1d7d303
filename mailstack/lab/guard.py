"""The guard of a lab, which removes it in time: `python -m mailstack.lab.guard up|users LAB ENDPOINT ID`.

It is a process of its own: it outlives the process that brings up or uses the lab, even when that one is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from mailstack.engine.engine import Engine
from mailstack.errors import EngineError, HostError
from mailstack.lab import homes
from mailstack.lab.leases import Leases
from mailstack.model import Deadline
from mailstack.state import Home, LabDirectory, owner
from mailstack.storage import directories
from mailstack.target.choice import choose
from mailstack.target.target import VARIABLE, Target

# How long to wait for the lab's lock, in seconds. Another command, or a killed command's Compose, may hold it.
_PATIENCE = 3600.0
# How long to retry while the engine does not answer, and the first and the longest pause between tries; in seconds.
_AWAY = 600.0
_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
# The same for an engine on another machine: this one may be without a network for a while.
_FAR, _LONGEST_FAR = 86400.0, 30.0
# How often to look whether the lab still exists, where the kernel does not report changes; in seconds.
_LOOK = 2.0


def wait(directory: LabDirectory, moment: float) -> bool:
    """Wait until `moment` (epoch seconds); return False as soon as the lab is gone or another one has its name."""
    look = math.inf
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            watched = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, watched)
            try:
                # Request a SIGIO when an entry of the directory is removed (fcntl(2), “File and directory change”).
                fcntl.fcntl(watched, fcntl.F_NOTIFY, fcntl.DN_DELETE | fcntl.DN_MULTISHOT)
            except OSError:
                look = _LOOK
        while True:
            found = directory.load()
            if found is None or found.expires != str(int(moment)):
                return False
            left = moment - time.time()
            if left <= 0:
                return True
            signal.sigtimedwait([signal.SIGIO], min(left, look))


@dataclass(frozen=True, slots=True)
class Way:
    """The connection to the engine of a lab."""

    connect: Callable[[], Target]  # connects anew each time: an earlier connection may have ended
    far: bool = False  # on another machine


def after_up(way: Way, there: Home, lab: str) -> None:
    """Act after the end of `up`: remove a lab that is not to stay now, any other when it expires."""
    directory = LabDirectory(there, lab)

    def unfinished() -> bool:
        found = directory.load()
        return found is None or not found.stays

    if not _take_down(way, there, lab, unfinished) and (found := directory.load()) and found.expires != "never":
        moment = found.expires
        if wait(directory, float(moment)):
            _take_down(way, there, lab, lambda: (now := directory.load()) is not None and now.expires == moment)


def after_users(way: Way, there: Home, lab: str) -> None:
    """Wait for the end of the last lease, then remove the lab."""
    Leases(there, lab).wait(lambda: _take_down(way, there, lab, lambda: True))


def _take_down(way: Way, there: Home, lab: str, wanted: Callable[[], bool]) -> bool:
    """Call `_try`, and retry while the engine or its host does not answer: it may be stopping or starting."""
    deadline, longest = Deadline.after(_FAR if way.far else _AWAY), _LONGEST_FAR if way.far else _LONGEST_PAUSE
    pause = _PAUSE
    while True:
        if way.far and not there.path.is_dir():
            sys.exit()  # the home is gone: no lab of that engine is left
        try:
            engine = Engine(way.connect())
            if homes.current(engine) != there:
                return False  # another engine has replaced it, which has no part of this lab
            return _try(engine, lab, wanted)
        except HostError as error:
            if deadline.passed() or not (way.far or isinstance(error, EngineError)):
                raise
        time.sleep(pause)  # there is no event for the return of an engine
        pause = min(2 * pause, longest)


def _try(engine: Engine, lab: str, wanted: Callable[[], bool]) -> bool:
    """Remove the lab if, under its lock, it is still `wanted`; return whether there was anything to remove."""
    from mailstack.lab.down import down

    def quiet(_: str) -> None:
        """Ignore progress: a guard has no terminal."""

    try:
        return down(engine, lab, quiet, wanted=wanted, patience=_PATIENCE, make_lock=False)
    except FileNotFoundError:
        # The command that removed the lock has removed the lab too, unless the engine failed.
        if owner() not in engine.owners(lab):
            return False
        return down(engine, lab, quiet, wanted=wanted, patience=_PATIENCE)


def main(kind: str, lab: str, endpoint: str, engine: str) -> None:
    """Wait, then remove the lab; retry while its engine does not answer."""
    there = Home(directories.root(), endpoint, engine)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])  # taken by `wait`
    host = os.environ.get(VARIABLE, "")
    way = Way(lambda: choose(os.environ, host=host), far=bool(host))
    {"up": after_up, "users": after_users}[kind](way, there, lab)


if __name__ == "__main__":
    main(*sys.argv[1:])
