"""Leases on a lab: it is removed when the last one is released.

<home>/<lab>.users   flock(2), shared:    a lease: a process uses the lab
                     flock(2), exclusive: the process that removes the lab, when no lease is left
                     fcntl(2), exclusive: the guard, which waits for the end of the leases

The kernel releases a lock when its process ends, for whatever reason. So a guard need not watch other processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import IO, TypeVar

from mailstack import state
from mailstack.model import Command
from mailstack.runner.local import Runner, module_command
from mailstack.state import Home
from mailstack.storage import directories, locks
from mailstack.target.target import Target

T = TypeVar("T")


class Leases:
    """The leases on a lab, with the lease of this process."""

    def __init__(self, home: Home, lab: str) -> None:
        self._home = home
        self._name = f"{state.check_name(lab)}.users"
        self.path = home.path / self._name
        self._fd: int | None = None

    def acquire(self) -> None:
        """Acquire a lease, held until `release` or the end of this process. Waits while the lab is being removed."""
        while self._fd is None:
            fd = self._home.open(self._name)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
                if locks.same_file(fd, self.path):
                    self._fd, fd = fd, -1
                    # A forked child must not hold the lease: it may outlive this process.
                    os.register_at_fork(after_in_child=self._close)
            finally:
                if fd >= 0:  # the lab was removed with this file: open the new one
                    os.close(fd)

    def release(self, last: Callable[[], object] = lambda: None) -> bool:
        """Release the lease; return True when it was the last one.

        In that case `last` (the removal of the lab, for example) is called first. No process can acquire a lease until
        it has returned.
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
        """Act as the guard: wait until all leases are released, then call `last` as `release` does.

        A second guard waits for the first, and takes its place when the first is killed. Returns at once when there is
        no lease file: no process has acquired a lease, or the lab has been removed already.
        """
        with contextlib.suppress(FileNotFoundError), self._open() as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            fcntl.flock(file, fcntl.LOCK_EX)
            if locks.same_file(file.fileno(), self.path):
                last()
                self._home.discard(self._name)

    def guarded(self) -> bool:
        """Return whether a guard waits for the end of these leases."""
        with contextlib.suppress(FileNotFoundError), self._open() as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def is_held(self) -> bool | None:
        """Return whether a process holds a lease; None when there is no lease file."""
        return self._exclusively(lambda: False, busy=True)

    def forget(self) -> None:
        """Remove the lease file, unless a process holds a lease."""
        self._exclusively(lambda: self._home.discard(self._name), busy=None)

    def _exclusively(self, action: Callable[[], T], busy: T) -> T | None:
        """Run `action` while no lease can be acquired; return its result, `busy` under a lease, None without a file."""
        with contextlib.suppress(FileNotFoundError), self._open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return busy
            return action() if locks.same_file(file.fileno(), self.path) else None
        return None

    def _open(self) -> IO[bytes]:
        return open(self._home.open(self._name, make=False), "r+b")

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def guard(target: Target, home: Home, lab: str, runner: Runner) -> None:
    """Start the guard of a lab, a process that removes the lab when its leases end, unless there is one already.

    The caller must hold a lease. If it is killed a moment later, the guard sees that no lease is left.
    """
    if not Leases(home, lab).guarded():
        runner.release(_guard_command(target, home, "users", lab))


class UpGuard:
    """Clean up after an `up` that is killed, from now on until `dismiss`.

    A shell waits for the end of a pipe whose write end only this process holds; starting it takes about 1 ms. Python
    starts, and looks for the lab, only when this process ends or closes the pipe.
    """

    def __init__(self, target: Target, home: Home, lab: str, runner: Runner) -> None:
        self.needed = False  # whether there is, or may be, something to remove now or later
        guard_process = _guard_command(target, home, "up", lab)
        read_end, self._write_end = os.pipe()
        shell = ("/bin/sh", "-c", 'read -r said || exec "$@"', "mailstack-watch", *guard_process.argv)
        try:
            runner.release(Command(shell, guard_process.environment), stdin=read_end)
        finally:
            os.close(read_end)

    def __enter__(self) -> UpGuard:
        return self

    def __exit__(self, *_: object) -> None:
        """Start the guard, which also waits for the lab's expiry, when that is `needed`; dismiss it otherwise."""
        if self.needed:
            os.close(self._write_end)
        else:
            self.dismiss()

    def dismiss(self) -> None:
        """End the watch: there is nothing to clean up."""
        with contextlib.suppress(BrokenPipeError):  # the shell was killed
            os.write(self._write_end, b"done\n")
        os.close(self._write_end)


def _guard_command(target: Target, home: Home, kind: str, lab: str) -> Command:
    """Return the command that runs `mailstack.lab.guard` for this lab, with the environment that it needs."""
    environment = {
        directories.VARIABLE: str(home.root.parent),
        "MAILSTACK_OWNER": state.owner(),
        **target.environment,
    }
    return module_command("mailstack.lab.guard", kind, lab, home.endpoint, home.engine, environment=environment)
