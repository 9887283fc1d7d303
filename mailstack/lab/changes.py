"""The record of changes to a running lab: a file for each, made before the change begins and removed after it ends.

<lab's directory>/changes/<token>   flock(2), exclusive: held while the process lives that makes the change
    first line: what is changed, as JSON; then the addresses of the accounts concerned, one a line

The file of a killed process remains, and the kernel releases its lock. So an unlocked file is a change that was
interrupted. `up` finishes or undoes it, and so does the next command that changes the lab.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets as _random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mailstack.errors import HostError
from mailstack.storage import directories, refusals

ACCOUNTS = "accounts"  # the command of a change that concerns only the accounts it names
PROOF = "proof"  # the command of the mails that prove a lab: they stay in mailboxes until they have been read
PROOF_MARK = "proof-of-lab"  # a part of their Message-IDs

_DIRECTORY = "changes"
_TEMPORARY = ".temporary"  # suffix of a file that is not locked yet


def search_key(mark: str) -> str:
    """Return the IMAP search key of the mails with this mark, and of their bounces (RFC 9051, section 6.4.4)."""
    return f'OR HEADER Message-ID "{mark}" (FROM "MAILER-DAEMON" BODY "{mark}")'


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A change that was interrupted."""

    path: Path
    command: str  # its name, like `secrets rotate`; or ACCOUNTS, PROOF
    since: float  # seconds of the epoch
    mark: str = ""  # a part of the Message-ID of each mail that the command sent to itself
    accounts: tuple[str, ...] = ()  # accounts that it was adding or removing

    @property
    def servers(self) -> bool:
        """Whether the services may have been left stopped, or with other files or credentials."""
        return self.command not in (ACCOUNTS, PROOF)

    @property
    def subject(self) -> str:
        """Return what it concerns, for a plan."""
        if self.command == PROOF:
            return "mails of a proof"
        return f"accounts: {', '.join(self.accounts)}" if self.command == ACCOUNTS else self.command

    def sentence(self) -> str:
        """Return a sentence that names the change and the time of its start."""
        what = f"“{self.command}”"
        if not self.servers:
            named = ", ".join(self.accounts[:3]) + (", …" if len(self.accounts) > 3 else "")
            what = f"a change of accounts ({named})" if named else "a change of accounts"
        return f"{what} was interrupted at {time.strftime('%H:%M:%S', time.localtime(self.since))}"


class Change:
    """A change of a lab by this process; on record from `begin` or `note` until `end`."""

    def __init__(self, lab: Path, command: str = ACCOUNTS, mark: str = "") -> None:
        self._directory = lab / _DIRECTORY
        self._path = self._directory / _random.token_hex(8)
        self._head = {"command": command, "mark": mark}
        self._fd: int | None = None
        self._accounts: set[str] = set()

    def begin(self) -> None:
        """Put the change on record. Safe to call twice. Raises HostError when that is impossible."""
        if self._fd is not None:
            return
        # Lock the file before it gets its final name: another process would take an unlocked one for interrupted.
        temporary = self._path.with_suffix(_TEMPORARY)
        if self._directory.is_symlink():
            raise refusals.not_ours(self._directory)
        try:
            if self._directory.is_file():  # damaged: the directory of the lab is ours alone
                self._directory.unlink()
            self._directory.mkdir(mode=0o700, exist_ok=True)  # no parents: a removed lab stays removed
            self._fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.register_at_fork(after_in_child=self._close)  # a child may outlive this process
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            os.write(self._fd, json.dumps({**self._head, "since": time.time()}).encode() + b"\n")
            temporary.rename(self._path)
        except OSError as error:
            self._close()
            raise HostError(f"{self._directory}: cannot be written: {error.strerror}") from None

    def note(self, addresses: Sequence[str]) -> None:
        """Record accounts before they are added or removed. Raises HostError when that is impossible."""
        self.begin()
        assert self._fd is not None
        try:
            os.write(self._fd, "".join(f"{address}\n" for address in addresses).encode())
        except OSError as error:
            raise HostError(f"{self._path}: cannot be written: {error.strerror}") from None
        self._accounts.update(addresses)

    def removed(self, addresses: Sequence[str]) -> None:
        """Record that accounts have been removed; the change ends with the last one."""
        self._accounts.difference_update(addresses)
        if not self._accounts:
            self.end()

    def end(self) -> None:
        """Remove the change from the record. Its accounts stay: nothing removes them later. Safe to call twice."""
        if self._fd is not None:
            self._path.unlink(missing_ok=True)
            self._accounts.clear()
            self._close()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@contextmanager
def changing(lab: Path, command: str, mark: str = "") -> Iterator[Change]:
    """Keep a change on record within `with`. After an exception it stays there, and counts as interrupted later."""
    change = Change(lab, command, mark)
    change.begin()
    yield change
    change.end()


def unfinished(lab: Path, *, proofs: bool = True) -> list[Unfinished]:
    """Return the interrupted changes of a lab, the oldest first; with `proofs=False` without proofs (PROOF)."""
    found = []
    directory = lab / _DIRECTORY
    # Whatever else is in a user's directory is none of ours. Nothing had been changed for one that is `temporary`.
    for path in () if directory.is_symlink() else directory.glob("[0-9a-f]" * 16):
        with contextlib.suppress(OSError), open(directories.open_file(path, os.O_RDONLY), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # two readers do not take each other for the writer
            # The last line may be cut off. Nothing had been changed for it.
            if change := _read(path, file.read().decode(errors="replace").split("\n")[:-1]):
                found.append(change)
    return sorted((each for each in found if proofs or each.command != PROOF), key=lambda each: each.since)


def _read(path: Path, lines: Sequence[str]) -> Unfinished | None:
    """Return the change that a file describes, or None for any other file."""
    try:
        head = json.loads(lines[0])
        return Unfinished(path, str(head["command"]), float(head["since"]), str(head["mark"]), tuple(lines[1:]))
    except (ValueError, IndexError, TypeError, KeyError):
        return None


def strike_out(changes: Sequence[Unfinished]) -> None:
    """Remove interrupted changes from the record, after they were finished or undone."""
    for change in changes:
        change.path.unlink(missing_ok=True)
