"""Who has added accounts to a running lab for a while, and which they are.

<lab's directory>/guests/<token>   their addresses, line by line; flock(2), exclusive: held while the process lives

A process that is killed removes nothing. But the kernel gives its lock up: so who adds accounts next sees which ones
nobody will ever remove.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets as _random
from collections.abc import Iterator, Sequence
from pathlib import Path

from mailstack import state
from mailstack.errors import HostError

_COMING = ".coming"


class Guest:
    """The accounts that this process has added to a lab for a while."""

    def __init__(self, lab: Path) -> None:
        self._directory = lab / "guests"
        self._path = self._directory / _random.token_hex(8)
        self._fd: int | None = None
        self._addresses: set[str] = set()

    def note(self, addresses: Sequence[str]) -> None:
        """These are about to be added."""
        if self._fd is None:
            # Locked before it has its name: who found it sooner would take it for one that was left, and wait for the
            # lab's lock with this one in hand, while this process, which has that one, waited for this.
            coming = self._path.with_suffix(_COMING)
            try:
                self._directory.mkdir(mode=0o700, exist_ok=True)  # without its parent: that one goes with the lab
                self._fd = os.open(coming, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                os.register_at_fork(after_in_child=self._close)  # a child may outlive this process
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                coming.rename(self._path)
            except OSError as error:
                self._close()
                raise HostError(f"{self._directory}: cannot be written: {error.strerror}") from None
        os.write(self._fd, "".join(f"{address}\n" for address in addresses).encode())
        self._addresses.update(addresses)

    def removed(self, addresses: Sequence[str]) -> None:
        """These are no more; with the last one, nothing is left to be known."""
        self._addresses.difference_update(addresses)
        if not self._addresses:
            self.disown()

    def disown(self) -> None:
        """Those that are there are to stay: nobody takes them away."""
        if self._fd is not None:
            self._path.unlink(missing_ok=True)
            self._addresses.clear()
            self._close()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def left(lab: Path) -> Iterator[list[str]]:
    """What each guest that has been killed has left: it is forgotten when the next one is asked for."""
    for path in (lab / "guests").glob("*"):
        if path.suffix == _COMING:
            continue
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if state.same_file(file.fileno(), path):
                # The last line may be cut off: then the account was not added, either.
                yield [line for line in file.read().decode(errors="replace").split("\n")[:-1] if line]
                path.unlink(missing_ok=True)
