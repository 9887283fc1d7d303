"""Takes a lab down when its time has come: `python -m mailstack.lab.guard up|users LAB ENDPOINT ID`.

A process of its own, which outlives the one that makes the lab, or uses it, however that one ends.
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
from mailstack.lab.leases import Users
from mailstack.model import Deadline
from mailstack.state import Home, LabDirectory, owner
from mailstack.storage import directories
from mailstack.target.choice import choose
from mailstack.target.target import VARIABLE, Target

# How long another command, or the Compose of one that was killed, may still work on the lab; in seconds.
_PATIENCE = 3600.0
# How long the engine may be away, and how long to wait before it is asked again: at first, and at most; in seconds.
_AWAY = 600.0
_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
# The same for one on another machine: this one may be on a journey.
_FAR, _LONGEST_FAR = 86400.0, 30.0
# How often to look whether the lab is still there, where the kernel does not tell; in seconds.
_LOOK = 2.0


def wait(directory: LabDirectory, moment: float) -> bool:
    """Wait until `moment` (seconds of the epoch); False as soon as the lab is gone, or another one with its name."""
    look = math.inf
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            watched = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, watched)
            try:
                # A SIGIO whenever something in the directory is removed (fcntl(2), “File and directory change”).
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
    """The way to a lab's engine."""

    connect: Callable[[], Target]  # anew each time: a connection may have ended since
    far: bool = False  # on another machine


def after_up(way: Way, there: Home, lab: str) -> None:
    """`up` has ended. A lab that is not to stay is taken down now, any other when it expires."""
    directory = LabDirectory(there, lab)

    def unfinished() -> bool:
        found = directory.load()
        return found is None or not found.stays

    if not _take_down(way, there, lab, unfinished) and (found := directory.load()) and found.expires != "never":
        moment = found.expires
        if wait(directory, float(moment)):
            _take_down(way, there, lab, lambda: (now := directory.load()) is not None and now.expires == moment)


def after_users(way: Way, there: Home, lab: str) -> None:
    """When its last user has gone, take the lab down."""
    Users(there, lab).wait(lambda: _take_down(way, there, lab, lambda: True))


def _take_down(way: Way, there: Home, lab: str, wanted: Callable[[], bool]) -> bool:
    """As `_try`, again and again while the engine does not answer, or its host: it may be on its way down, or up."""
    deadline, longest = Deadline.after(_FAR if way.far else _AWAY), _LONGEST_FAR if way.far else _LONGEST_PAUSE
    pause = _PAUSE
    while True:
        if way.far and not there.path.is_dir():
            sys.exit()  # nothing is known here any more of any lab there
        try:
            engine = Engine(way.connect())
            if homes.current(engine) != there:
                return False  # another engine has come in its place: it has nothing of this lab
            return _try(engine, lab, wanted)
        except HostError as error:
            if deadline.passed() or not (way.far or isinstance(error, EngineError)):
                raise
        time.sleep(pause)  # an engine that is away has no event for its return
        pause = min(2 * pause, longest)


def _try(engine: Engine, lab: str, wanted: Callable[[], bool]) -> bool:
    """Take the lab down if it is, once nobody else works on it, still `wanted`; say whether there was anything."""
    from mailstack.lab.down import down

    def quiet(_: str) -> None:
        """Nobody listens."""

    try:
        return down(engine, lab, quiet, wanted=wanted, patience=_PATIENCE, make_lock=False)
    except FileNotFoundError:
        # Whoever took the lock away has taken the lab down, unless the engine did not let him.
        if owner() not in engine.owners(lab):
            return False
        return down(engine, lab, quiet, wanted=wanted, patience=_PATIENCE)


def main(kind: str, lab: str, endpoint: str, engine: str) -> None:
    """Wait, then take the lab down; its engine may be away."""
    there = Home(directories.root(), endpoint, engine)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])  # taken by `wait`
    host = os.environ.get(VARIABLE, "")
    way = Way(lambda: choose(os.environ, host=host), far=bool(host))
    {"up": after_up, "users": after_users}[kind](way, there, lab)


if __name__ == "__main__":
    main(*sys.argv[1:])
