"""Leases on temporary accounts of a running lab: one file for each process that has added some.

<lab's directory>/guests/<token>   addresses, one a line; flock(2), exclusive: held while the process lives

A process that is killed does not remove its accounts, but the kernel releases its lock. The next process that adds
accounts sees from the unlocked file which accounts are left over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets as _random
from collections.abc import Iterator, Sequence
from pathlib import Path

from mailstack.errors import HostError
from mailstack.storage import locks

_PENDING = ".coming"


class AccountLease:
    """The lease of this process on the temporary accounts that it has added to a lab."""

    def __init__(self, lab: Path) -> None:
        self._directory = lab / "guests"
        self._path = self._directory / _random.token_hex(8)
        self._fd: int | None = None
        self._addresses: set[str] = set()

    def note(self, addresses: Sequence[str]) -> None:
        """Record addresses before they are added, in the lease file. Raises HostError when it cannot be written."""
        if self._fd is None:
            # Lock the file before it gets its final name. Another process that saw it unlocked would take it for a
            # left-over lease and lock it while it waits for the lab's lock. This process holds the lab's lock and
            # would wait for the file: a deadlock.
            pending = self._path.with_suffix(_PENDING)
            try:
                self._directory.mkdir(mode=0o700, exist_ok=True)  # no parents: a removed lab stays removed
                self._fd = os.open(pending, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                os.register_at_fork(after_in_child=self._close)  # a child may outlive this process
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                pending.rename(self._path)
            except OSError as error:
                self._close()
                raise HostError(f"{self._directory}: cannot be written: {error.strerror}") from None
        os.write(self._fd, "".join(f"{address}\n" for address in addresses).encode())
        self._addresses.update(addresses)

    def removed(self, addresses: Sequence[str]) -> None:
        """Record that addresses have been removed; release the lease with the last one."""
        self._addresses.difference_update(addresses)
        if not self._addresses:
            self.disown()

    def disown(self) -> None:
        """Release the lease and keep its accounts: nothing removes them later."""
        if self._fd is not None:
            self._path.unlink(missing_ok=True)
            self._addresses.clear()
            self._close()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def abandoned(lab: Path) -> Iterator[list[str]]:
    """Yield the addresses of each lease whose process was killed; remove its file when the next one is requested."""
    for path in (lab / "guests").glob("*"):
        if path.suffix == _PENDING:
            continue
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if locks.same_file(file.fileno(), path):
                # The last line may be cut off. Its account was not added.
                yield [line for line in file.read().decode(errors="replace").split("\n")[:-1] if line]
                path.unlink(missing_ok=True)
