"""Accounts added to and removed from a running lab, without a restart of its servers.

Dovecot looks up a file named after the user, so an account is valid as soon as its file exists. Postfix uses lookup
tables of its own. A small program in its container changes them; it is started once for any number of accounts.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

from mailstack.actions import credentials
from mailstack.config import files
from mailstack.errors import HostError, InputError
from mailstack.lab import finishing, healing
from mailstack.lab.changes import Change
from mailstack.lab.running import RunningLab
from mailstack.model import Account, Progress
from mailstack.roles import Role
from mailstack.secret import Secret, new_password
from mailstack.text.addresses import address_flaw

# The time limit for an answer of the program in Postfix's container, in seconds.
_ANSWER_SECONDS = 30.0

# Addresses sent to Postfix's program before its answer is read. They and the answer fit into a pipe (pipe(7)), which
# avoids a deadlock: each side would wait for the other to read.
_BATCH = 200


class Accounts:
    """The accounts of a running lab, for changes. A context manager: leaving `with` closes its connection."""

    def __init__(self, lab: RunningLab, progress: Progress = lambda text: None) -> None:
        self.lab = lab
        self._progress = progress
        self._tables = _Tables(lab)
        self._finished = False  # what interrupted commands have left

    def __enter__(self) -> Accounts:
        return self

    def __exit__(self, *_: object) -> None:
        self._tables.close()

    def add(
        self,
        address: str,
        *,
        password: Secret | None = None,
        quota: int | None = None,
        fresh: bool = False,
        temporary: bool = False,
    ) -> Secret:
        """Add an account and return its password. When this returns, it can log in, send and receive.

        `password` defaults to a new one; `quota` is in bytes. `fresh` says that no login with this address has been
        tried before, so no test login is needed: Dovecot looks again in the next second for a file that was missing. A
        `temporary` account lasts as long as this process. If it is killed, the next command that changes the lab
        removes the account. Raises InputError if the address cannot be an account's, HostError if Postfix did not
        accept it.
        """
        address = _checked(self.lab, address)
        password = password or new_password()
        self._add({Account(address, quota): password}, temporary=temporary)
        if not fresh:
            credentials.await_password(self.lab, address, password)
        return password

    def add_several(self, addresses: Sequence[str], *, quota: int | None = None) -> dict[str, Secret]:
        """Add temporary accounts with new passwords, all or none, and return the passwords.

        No login with these addresses may have been tried before. The accounts are valid when this returns. `quota` is
        in bytes. Raises what `add` does.
        """
        addresses = [_checked(self.lab, address) for address in addresses]
        added = {address: new_password() for address in addresses}
        self._add({Account(address, quota): password for address, password in added.items()}, temporary=True)
        return added

    def _add(self, accounts: Mapping[Account, Secret], *, temporary: bool) -> None:
        self._finish()
        addresses = [account.address for account in accounts]
        defined = set(self.lab.defined.addresses())
        change = self.lab.temporary if temporary else Change(self.lab.directory.path)
        with self.lab.locked(self._progress):
            for address in addresses:
                # Not the whole list of accounts: it grows with every test of a suite.
                if address in defined or files.is_added(self.lab.directory.files, address):
                    raise InputError(f"{address} is already an account of lab “{self.lab.name}”")
            change.note(addresses)
            try:
                directory = self.lab.directory.files
                self.lab.target.hand_over(directory, files.add(directory, accounts))
                self._tables.change("add", addresses)
            except BaseException:
                # They stay on record: Postfix may have them.
                self._drop(addresses)
                raise
            if not temporary:
                change.end()

    def remove_several(self, addresses: Sequence[str]) -> None:
        """Remove added accounts and their mailboxes, without waiting until their passwords become invalid.

        That takes up to a second, and nobody else knows these passwords. Addresses that do not exist, and those of the
        lab's definition, are ignored. Raises HostError.
        """
        defined = set(self.lab.defined.addresses())
        addresses = [address for address in addresses if address not in defined]
        with self.lab.locked(self._progress):
            self._drop(addresses)
            try:
                self._tables.change("remove", addresses)
            finally:
                healing.empty_mailboxes(self.lab, addresses)
        self.lab.temporary.removed(addresses)

    def remove(self, address: str) -> None:
        """Remove an added account and its mailbox. When this returns, its password is invalid.

        Raises InputError if the account was not added to the running lab.
        """
        if flaw := address_flaw(address):
            raise InputError(f"{address[:300]!r} {flaw}", remedy=self.lab.line("account", "list"))
        address = address.lower()
        self._finish()
        with self.lab.locked(self._progress):
            if not files.is_added(self.lab.directory.files, address):
                defined = address in self.lab.defined.addresses()
                problem = "is of the lab's definition" if defined else "is not an account"
                raise InputError(
                    f"{address} {problem}: only accounts that were added to the running lab can be removed",
                    remedy=self.lab.line("account", "list"),
                )
            change = Change(self.lab.directory.path)
            change.note([address])
            password = self.lab.password(address)
            self._drop([address])
            self._tables.change("remove", [address])
            credentials.await_password(self.lab, address, password, holds=False)
            healing.empty_mailboxes(self.lab, [address])
            change.end()

    def added(self) -> list[Account]:
        """Return the accounts that were added since the lab was started."""
        return files.added(self.lab.directory.files)

    def _finish(self) -> None:
        """Finish or undo, once, what interrupted commands have left."""
        if not self._finished:
            self._finished = True
            finishing.finish(self.lab, self._progress)

    def _drop(self, addresses: Sequence[str]) -> None:
        directory = self.lab.directory.files
        self.lab.target.hand_over(directory, files.remove(directory, addresses))


def _checked(lab: RunningLab, address: str) -> str:
    """Return the address in lower case. Raises InputError unless it can be a new account of the lab."""
    if flaw := address_flaw(address):
        problem = f"{address[:300]!r} cannot be an account's address"
        raise InputError(f"{problem}: it {flaw}", remedy="write it like dora@example.com")
    address = address.lower()
    definition = lab.defined
    domains = [domain.name for domain in definition.domains]
    if address.rpartition("@")[2] not in domains:
        raise InputError(f"{address} is in none of the lab's domains", remedy="domains: " + ", ".join(domains))
    if address in [alias.address for alias in definition.aliases]:
        raise InputError(f"{address} is an alias of lab “{lab.name}”")
    return address


class _Tables:
    """The program that changes Postfix's tables of accounts, started when it is first needed.

    Only one may run at a time: of two postmap(1) that add to one table, one may undo the other's change.
    """

    def __init__(self, lab: RunningLab) -> None:
        self._lab = lab
        self._program: socket.socket | None = None

    def close(self) -> None:
        """End the program, if it was started. Safe to call twice."""
        if self._program:
            self._program.close()
        self._program = None

    def change(self, action: str, addresses: Sequence[str]) -> None:
        """`add` or `remove` addresses; on return, Postfix accepts or refuses mail for them. Raises HostError."""
        if self._program is None:
            self._program = self._lab.engine.stream(self._lab.one(Role.SUBMISSION).container, ["accounts"])
            self._program.settimeout(_ANSWER_SECONDS)
        try:
            for first in range(0, len(addresses), _BATCH):
                self._exchange(self._program, f"{action} {' '.join(addresses[first : first + _BATCH])}\n")
        except BaseException:
            self.close()  # a late answer must not be taken for the answer to the next request
            raise

    def _exchange(self, program: socket.socket, line: str) -> None:
        answer = b""
        name = self._lab.defined.name(Role.SUBMISSION)
        try:
            program.sendall(line.encode())
            while not answer.endswith(b"\n"):
                more = program.recv(4096)
                if not more:
                    raise HostError(f"{name} did not accept the account", remedy=self._lab.line("logs", name))
                answer += more
        except OSError as error:
            raise HostError(f"{name} did not accept the account: {error}") from None
        if answer.decode(errors="replace") != line:
            raise HostError(f"{name} did not accept the account: {answer.decode(errors='replace').strip()}")
