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
_RETRY_SECONDS = 600.0
_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
# The same for an engine on another machine: this one may be without a network for a while.
_REMOTE_RETRY_SECONDS, _LONGEST_REMOTE_PAUSE = 86400.0, 30.0
# How often to look whether the lab still exists, where the kernel does not report changes; in seconds.
_CHECK_SECONDS = 2.0


def wait(directory: LabDirectory, moment: float) -> bool:
    """Wait until `moment` (epoch seconds); return False as soon as the lab is gone or another one has its name."""
    check_seconds = math.inf
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            watched = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, watched)
            try:
                # Request a SIGIO when an entry of the directory is removed (fcntl(2), “File and directory change”).
                fcntl.fcntl(watched, fcntl.F_NOTIFY, fcntl.DN_DELETE | fcntl.DN_MULTISHOT)
            except OSError:
                check_seconds = _CHECK_SECONDS
        while True:
            record = directory.load()
            if record is None or record.expires != str(int(moment)):
                return False
            seconds_left = moment - time.time()
            if seconds_left <= 0:
                return True
            signal.sigtimedwait([signal.SIGIO], min(seconds_left, check_seconds))


@dataclass(frozen=True, slots=True)
class EngineAccess:
    """The connection to the engine of a lab."""

    connect: Callable[[], Target]  # connects anew each time: an earlier connection may have ended
    remote: bool = False  # on another machine


def after_up(access: EngineAccess, home: Home, lab: str) -> None:
    """Act after the end of `up`: remove a lab that is not to stay now, any other when it expires."""
    directory = LabDirectory(home, lab)

    def unfinished() -> bool:
        record = directory.load()
        return record is None or not record.stays

    def expired() -> bool:
        record = directory.load()
        return record is not None and record.expires == moment

    if _remove_with_retries(access, home, lab, unfinished):
        return
    if (record := directory.load()) and record.expires != "never":
        moment = record.expires
        if wait(directory, float(moment)):
            _remove_with_retries(access, home, lab, expired)


def after_leases(access: EngineAccess, home: Home, lab: str) -> None:
    """Wait for the end of the last lease, then remove the lab."""
    Leases(home, lab).wait(lambda: _remove_with_retries(access, home, lab, lambda: True))


def _remove_with_retries(access: EngineAccess, home: Home, lab: str, condition: Callable[[], bool]) -> bool:
    """Call `_remove_if`, and retry while the engine or its host does not answer: it may be stopping or starting."""
    deadline = Deadline.after(_REMOTE_RETRY_SECONDS if access.remote else _RETRY_SECONDS)
    longest = _LONGEST_REMOTE_PAUSE if access.remote else _LONGEST_PAUSE
    pause = _PAUSE
    while True:
        if access.remote and not home.path.is_dir():
            sys.exit()  # the home is gone: no lab of that engine is left
        try:
            engine = Engine(access.connect())
            if homes.current(engine) != home:
                return False  # another engine has replaced it, which has no part of this lab
            return _remove_if(engine, lab, condition)
        except HostError as error:
            if deadline.passed() or not (access.remote or isinstance(error, EngineError)):
                raise
        time.sleep(pause)  # there is no event for the return of an engine
        pause = min(2 * pause, longest)


def _remove_if(engine: Engine, lab: str, condition: Callable[[], bool]) -> bool:
    """Remove the lab if, under its lock, `condition` holds; return whether there was anything to remove."""
    from mailstack.lab.down import down

    def quiet(_: str) -> None:
        """Ignore progress: a guard has no terminal."""

    try:
        return down(engine, lab, quiet, condition=condition, patience=_PATIENCE, make_lock=False)
    except FileNotFoundError:
        # The command that removed the lock has removed the lab too, unless the engine failed. And an experiment makes
        # the directory before there is a lock.
        if not engine.leftovers(lab, owner()) and not homes.directory(engine, lab).is_made():
            return False
        return down(engine, lab, quiet, condition=condition, patience=_PATIENCE)


def main(kind: str, lab: str, endpoint: str, engine: str) -> None:
    """Wait, then remove the lab; retry while its engine does not answer."""
    home = Home(directories.root(), endpoint, engine)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])  # taken by `wait`
    host = os.environ.get(VARIABLE, "")
    access = EngineAccess(lambda: choose(os.environ, host=host), remote=bool(host))
    {"up": after_up, "users": after_leases}[kind](access, home, lab)


if __name__ == "__main__":
    main(*sys.argv[1:])
