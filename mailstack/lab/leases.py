"""Who uses a lab, and who takes it down when nobody does any more.

<home>/<lab>.users   flock(2), shared:    a process that uses the lab
                     flock(2), exclusive: who takes it down, when no user is left
                     fcntl(2), exclusive: the guard that waits for that

The kernel gives a lock up when its process ends, however it ends: a guard need not look whether the users live.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import IO, TypeVar

from mailstack import state
from mailstack.model import Command
from mailstack.runner.local import Runner, program
from mailstack.state import Home
from mailstack.storage import directories
from mailstack.target.target import Target

T = TypeVar("T")


class Users:
    """A lab's users, and this process among them."""

    def __init__(self, home: Home, lab: str) -> None:
        self._home = home
        self._name = f"{state.check_name(lab)}.users"
        self.path = home.path / self._name
        self._fd: int | None = None

    def join(self) -> None:
        """This process uses the lab, until it leaves or ends. While the lab is being taken down, wait for that."""
        while self._fd is None:
            fd = self._home.open(self._name)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
                if state.same_file(fd, self.path):
                    self._fd, fd = fd, -1
                    # A child that was forked is no user: it may outlive the process that is.
                    os.register_at_fork(after_in_child=self._close)
            finally:
                if fd >= 0:  # who took the lab down took the file away, too: the users' file is another now
                    os.close(fd)

    def leave(self, last: Callable[[], object] = lambda: None) -> bool:
        """This process uses the lab no longer. True when nobody else does.

        Then `last` (the lab's removal, say) is called first: until it has ended, nobody can join.
        """
        if self._fd is None:
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last()
            self._home.discard(self._name)
        except BlockingIOError:
            return False
        finally:
            self._close()
        return True

    def wait(self, last: Callable[[], object]) -> None:
        """Be the guard: wait until nobody uses the lab any more, then call `last` as `leave` does.

        A second guard waits for the first, and takes its place when that one is killed. Without users' file, nobody has
        joined, or everything is done: then come back at once.
        """
        with contextlib.suppress(FileNotFoundError), self._opened() as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            fcntl.flock(file, fcntl.LOCK_EX)
            if state.same_file(file.fileno(), self.path):
                last()
                self._home.discard(self._name)

    def guarded(self) -> bool:
        """Whether a guard waits for the end of these users."""
        with contextlib.suppress(FileNotFoundError), self._opened() as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def used(self) -> bool | None:
        """Whether anybody uses the lab; None where nobody ever has."""
        return self._alone(lambda: False, busy=True)

    def forget(self) -> None:
        """Remove the users' file, if nobody uses the lab."""
        self._alone(lambda: self._home.discard(self._name), busy=None)

    def _alone(self, action: Callable[[], T], busy: T) -> T | None:
        """What `action` gives, during which nobody can join; `busy` when somebody uses the lab, None without a file."""
        with contextlib.suppress(FileNotFoundError), self._opened() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return busy
            return action() if state.same_file(file.fileno(), self.path) else None
        return None

    def _opened(self) -> IO[bytes]:
        return open(self._home.open(self._name, make=False), "r+b")

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def guard(target: Target, home: Home, lab: str, runner: Runner) -> None:
    """See to it that the lab is taken down when its last user has gone: by a process of its own, one for each lab.

    Called by a process that has joined: where that one is killed a moment later, the guard sees that nobody is left.
    """
    if not Users(home, lab).guarded():
        runner.release(_reaper(target, home, "users", lab))


class Watch:
    """Sees to it that an `up` which is killed leaves nothing, from now on until it is told that all is well.

    A shell waits for the end of a pipe that this process alone holds; it costs a thousandth of a second. Only when this
    process ends, or gives the pipe up, does Python start, and look at what there is of the lab.
    """

    def __init__(self, target: Target, home: Home, lab: str, runner: Runner) -> None:
        self.needed = False  # whether there is, or may be, something to take down now or later
        waiting = _reaper(target, home, "up", lab)
        theirs, self._mine = os.pipe()
        shell = ("/bin/sh", "-c", 'read -r said || exec "$@"', "mailstack-watch", *waiting.argv)
        try:
            runner.release(Command(shell, waiting.environment), stdin=theirs)
        finally:
            os.close(theirs)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        """Let it look at the lab now, and wait for its expiry, where that is `needed`; dismiss it otherwise."""
        if self.needed:
            os.close(self._mine)
        else:
            self.dismiss()

    def dismiss(self) -> None:
        """There is nothing to look after any more."""
        with contextlib.suppress(BrokenPipeError):  # it was killed
            os.write(self._mine, b"done\n")
        os.close(self._mine)


def _reaper(target: Target, home: Home, kind: str, lab: str) -> Command:
    """`mailstack.lab.guard` with all that it needs to find this lab, wherever it runs."""
    environment = {
        directories.VARIABLE: str(home.root.parent),
        "MAILSTACK_OWNER": state.owner(),
        **target.environment,
    }
    return program("mailstack.lab.guard", kind, lab, home.endpoint, home.engine, environment=environment)
