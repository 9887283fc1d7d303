"""Locks on files (flock(2)); the kernel releases them when their process ends, for whatever reason."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

from mailstack.errors import DeadlinePassed
from mailstack.model import Deadline


def acquire(fd: int, what: str, deadline: Deadline, on_wait: Callable[[], None]) -> None:
    """Lock an open file (flock(2)); call `on_wait` first when another process holds the lock.

    `what` names the locked object in messages. Raises DeadlinePassed.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        if not deadline.passed():
            on_wait()
    held = threading.Event()

    def wait() -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            held.set()
        except OSError:
            pass  # the deadline passed, and the file was closed

    threading.Thread(target=wait, daemon=True).start()
    if not held.wait(deadline.remaining()):
        raise DeadlinePassed(
            f"another mailstack command was still working on {what} after {deadline.seconds:g} s",
            remedy="wait for it, or end it, and try again",
        )


def same_file(fd: int, path: Path) -> bool:
    """Return whether an open file or directory is still the one at `path`, which is no symbolic link."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False
