"""Accounts that are added to a lab while it runs, and taken from it: no server is started again for them.

Dovecot looks for a file that is named after the user, so an account holds as soon as its file is there. Postfix looks
into tables of its own; a small program in its container changes them, and is started once for as many accounts as are
wanted.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from mailstack import state
from mailstack.actions import credentials
from mailstack.config import files
from mailstack.errors import HostError, InputError, MailstackError
from mailstack.lab import account_leases
from mailstack.lab.running import RunningLab
from mailstack.model import Account, Deadline, Progress
from mailstack.roles import Role
from mailstack.secret import Secret, new_password
from mailstack.text.addresses import address_flaw

# How long Postfix's program may take to answer, in seconds.
_ANSWER_SECONDS = 30.0

# Addresses that Postfix's program is given before it has answered: they and its answer fit into a pipe (pipe(7)), so
# that nobody waits for somebody who waits for them.
_AT_ONCE = 200

# What Dovecot keeps of an account: its mail_home, and its mail_volatile_path.
_PLACES = ("/srv/mail", "/tmp/locks")


class Accounts:
    """The accounts of a running lab, to be changed; closes its connection at the end of `with`."""

    def __init__(self, lab: RunningLab, progress: Progress = lambda text: None) -> None:
        self.lab = lab
        self._progress = progress
        self._tables = _Tables(lab)
        self._looked = False  # for what others have left

    def __enter__(self) -> Accounts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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
        """Add an account; when this returns, it can log in, send and receive. `quota` is in bytes.

        `fresh` says that nobody has tried to log in as it before, so that it need not be tried whether it holds: what
        was not there is looked for again in the next second. One that is `temporary` is for as long as this process
        has the lab: if that is killed, the next that adds one removes it. Gives its password, a new one unless said.
        Raises InputError where the address cannot be an account's, HostError where Postfix did not take it.
        """
        address = _checked(self.lab, address)
        password = password or new_password()
        if temporary:
            self._remove_left()
        with self._locked():
            # Not the whole list of accounts, which grows with every test of a suite.
            if files.is_added(self.lab.directory.files, address) or address in self.lab.defined.addresses():
                raise InputError(f"{address} is an account of lab “{self.lab.name}” already")
            if temporary:
                self.lab.guest.note([address])
            self._keep({Account(address, quota): password})
            try:
                self._tables.change("add", [address])
            except BaseException:
                self._drop([address])
                raise
        if not fresh:
            credentials.await_password(self.lab, address, password)
        return password

    def add_several(self, addresses: Sequence[str], *, quota: int | None = None) -> dict[str, Secret]:
        """Add temporary accounts that nobody has tried to log in as before; when this returns, they hold.

        Gives their new passwords. Either all of them are there, or none. Raises what `add` does.
        """
        addresses = [_checked(self.lab, address) for address in addresses]
        added = {address: new_password() for address in addresses}
        self._remove_left()
        with self._locked():
            there = set(self.lab.definition().addresses())
            for address in addresses:
                if address in there:
                    raise InputError(f"{address} is an account of lab “{self.lab.name}” already")
            self.lab.guest.note(addresses)
            try:
                given = {Account(address, quota): password for address, password in added.items()}
                self._keep(given)
                self._tables.change("add", addresses)
            except BaseException:
                self._drop(addresses)
                raise
        return added

    def remove_several(self, addresses: Sequence[str]) -> None:
        """Take added accounts from the lab, with their mailboxes, whose passwords nobody else knows.

        So it is not waited until those hold no more: that takes up to a second. Those that are not there, and the
        definition's own, are passed over. Raises HostError.
        """
        defined = set(self.lab.defined.addresses())
        addresses = [address for address in addresses if address not in defined]
        with self._locked():
            self._drop(addresses)
            try:
                self._tables.change("remove", addresses)
            finally:
                self._empty(addresses)
        self.lab.guest.removed(addresses)

    def remove(self, address: str) -> None:
        """Take an added account from the lab, with its mailbox; when this returns, its password holds no more.

        Raises InputError where it was not added to it.
        """
        if flaw := address_flaw(address):
            raise InputError(f"{address[:300]!r} {flaw}", remedy=self.lab.line("account", "list"))
        address = address.lower()
        with self._locked():
            if not files.is_added(self.lab.directory.files, address):
                defined = address in self.lab.defined.addresses()
                what = "is of the lab's definition" if defined else "is no account"
                raise InputError(
                    f"{address} {what}: only accounts that were added to the running lab can be removed",
                    remedy=self.lab.line("account", "list"),
                )
            password = self.lab.password(address)
            self._drop([address])
            self._tables.change("remove", [address])
            credentials.await_password(self.lab, address, password, holds=False)
            self._empty([address])

    def added(self) -> list[Account]:
        """The accounts that were added since the lab was brought up."""
        return files.added(self.lab.directory.files)

    def _remove_left(self) -> None:
        """Remove what those who were killed have left; that it cannot be done is no trouble of this process."""
        if self._looked:
            return
        self._looked = True
        with contextlib.suppress(MailstackError):
            for noted in account_leases.left(self.lab.directory.path):
                if addresses := [address for address in noted if not address_flaw(address)]:
                    self.remove_several(addresses)

    def _keep(self, accounts: Mapping[Account, Secret]) -> None:
        self._hand_over(files.add(self.lab.directory.files, accounts))

    def _drop(self, addresses: Sequence[str]) -> None:
        self._hand_over(files.remove(self.lab.directory.files, addresses))

    def _hand_over(self, names: Sequence[str]) -> None:
        self.lab.target.hand_over(self.lab.directory.files, names)

    def _locked(self) -> AbstractContextManager[int]:
        return self.lab.directory.locked(
            Deadline.after(state.LOCK_SECONDS), lambda: self._progress("waiting for another command on this lab")
        )

    def _empty(self, addresses: Sequence[str]) -> None:
        """Remove the mailboxes of accounts that are no more."""
        store = self.lab.one(Role.STORE).container
        names = "".join(f"{place}/{address}\0" for address in addresses for place in _PLACES)
        result = self.lab.engine.execute(store, ["xargs", "-0", "rm", "-rf", "--"], input=names.encode())
        if result.code != 0:
            what = "the mailbox of " + (addresses[0] if len(addresses) == 1 else f"{len(addresses)} accounts")
            raise HostError(f"{what} could not be removed: {result.stderr.strip()}")


def _checked(lab: RunningLab, address: str) -> str:
    """Return the address in lower case. Raises InputError unless it can be a new account of the lab."""
    if flaw := address_flaw(address):
        shown = f"{address[:300]!r} cannot be an account's address"
        raise InputError(f"{shown}: it {flaw}", remedy="write it like dora@example.com")
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

    Never by two at once: of two postmap(1) that add to one table, one may undo what the other did.
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
        """`add` or `remove` addresses; returns when Postfix accepts, or refuses, mail for them. Raises HostError."""
        if self._program is None:
            self._program = self._lab.engine.stream(self._lab.one(Role.SUBMISSION).container, ["accounts"])
            self._program.settimeout(_ANSWER_SECONDS)
        try:
            for first in range(0, len(addresses), _AT_ONCE):
                self._exchange(self._program, f"{action} {' '.join(addresses[first : first + _AT_ONCE])}\n")
        except BaseException:
            self.close()  # its answer may still come, and belongs to no later question
            raise

    def _exchange(self, program: socket.socket, line: str) -> None:
        answer = b""
        name = self._lab.defined.name(Role.SUBMISSION)
        try:
            program.sendall(line.encode())
            while not answer.endswith(b"\n"):
                more = program.recv(4096)
                if not more:
                    raise HostError(f"{name} did not take the account", remedy=self._lab.line("logs", name))
                answer += more
        except OSError as error:
            raise HostError(f"{name} did not take the account: {error}") from None
        if answer.decode(errors="replace") != line:
            raise HostError(f"{name} did not take the account: {answer.decode(errors='replace').strip()}")
