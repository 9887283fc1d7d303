"""The lab under check: its accounts, connections from the sender's container, mailboxes and logs.

Postfix trusts no address except its own loopback, so the sender is a client like any other.
"""

from __future__ import annotations

import itertools
import os
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from email.message import EmailMessage
from functools import cached_property
from typing import TYPE_CHECKING

from mailstack.checks.judging import NotApplicable
from mailstack.checks.logs import ServiceLog
from mailstack.checks.once import Once
from mailstack.config import files
from mailstack.engine.dialer import Dialer
from mailstack.errors import MailstackError
from mailstack.lab import healing
from mailstack.lab.changes import Change, search_key
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.model import STUDENT, Deadline, Port
from mailstack.protocol import imap, smtp, trust
from mailstack.protocol.smtp import Smtp
from mailstack.roles import STANDARD, Role
from mailstack.secret import Secret

if TYPE_CHECKING:
    from imap_tools import BaseMailBox

# The TLS mode of each port.
TLS_OF: dict[int, smtp.Tls] = {25: "none", 587: "starttls", 465: "implicit"}

# Timeout in seconds for a mail, and for a log line. Deliveries take hundredths of a second.
ARRIVAL_SECONDS = 8.0


class Bench:
    """A running lab, with everything that a check needs. Leaving `with` removes all that the checks created.

    >>> with Bench(RunningLab("lab")) as bench:
    ...     results = checks.run(bench, checks.select(["tls"]), lambda result: None)
    """

    def __init__(self, lab: RunningLab) -> None:
        self.lab = lab
        self.engine = lab.engine
        self.once = Once()
        self.cleanup = ExitStack()  # runs at exit
        self._containers = {role: lab.one(role).container for role in STANDARD}
        self._count = itertools.count(1)
        self._mark = f"check-{os.urandom(6).hex()}"
        self._opened_mailboxes: set[str] = set()  # accounts whose mailboxes were opened
        self._unsent = False  # whether a mail of the checks may be left in a queue
        self._started = int(time.time())
        self._dialer = self.cleanup.enter_context(
            Dialer(lambda argv: self.engine.stream(self.container(Role.SENDER), argv))
        )

        self._change = Change(lab.directory.path, "check", self._mark)
        self._change.begin()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, interrupted: type[BaseException] | None, *_: object) -> None:
        """Remove all that the checks created. After an interruption it stays on record: mails may be on their way."""
        with ThreadPoolExecutor() as pool:
            cleanup = pool.submit(self.cleanup.close)
            if self._unsent:
                pool.submit(self._sweep).result()
            list(pool.map(self._remove_mails, sorted(self._opened_mailboxes)))
            cleanup.result()
        if interrupted is None:
            self._change.end()

    # ── accounts and services ──────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def alice(self) -> str:
        """Return the lab's first account."""
        return self.lab.definition().addresses()[0]

    @cached_property
    def bob(self) -> str:
        """Return the lab's second account."""
        return self.others(1)[0]

    def others(self, count: int) -> list[str]:
        """Return `count` accounts other than the first."""
        found = self.lab.definition().addresses()[1 : count + 1]
        if len(found) < count:
            raise NotApplicable(f"the lab has fewer than {count + 1} accounts")
        return found

    @property
    def student(self) -> str:
        """Return the address of the user on the sender. The lab may have no account of this name."""
        return f"{STUDENT}@{self.lab.definition().mailname}"

    def container(self, role: Role) -> str:
        """Return the container id of the service with a role."""
        return self._containers[role]

    def password(self, address: str) -> Secret:
        """Return an account's password."""
        return self.lab.password(address)

    @property
    def relay(self) -> tuple[str, Secret]:
        """Return the user and the password of the relay host in the lab."""
        found = files.read_relay(self.lab.directory.files)
        if found is None:
            raise NotApplicable("the lab has no relay credentials")
        return found

    def refuse_outside_relay(self) -> None:
        """Raise NotApplicable when the sender uses a relay host outside the lab, since its network is then open."""
        if self.lab.state.relay:
            raise NotApplicable("the lab relays through an outside provider")

    def refuse_blank_sender(self) -> None:
        """Raise NotApplicable when the sender is as Debian installs it: its configuration is the student's."""
        if self.lab.defined.blank:
            raise NotApplicable("the sender is configured by hand (up --blank)")

    def blot(self, text: str) -> str:
        """Return `text` without the lab's secrets: a server may have repeated one."""
        return files.blot(self.lab.directory.files, text)

    # ── connections ────────────────────────────────────────────────────────────────────────────────────────────

    def dial(self, host: str, port: int) -> smtp.Dial:
        """Return a function that connects to a port of a host from the sender's container."""

        def connect() -> socket.socket:
            connection = self._dialer.dial(host, port)
            connection.settimeout(smtp.ANSWER_SECONDS)
            return connection

        return connect

    def published(self, port: Port) -> socket.socket:
        """Connect to a published port from this machine. Costs a tenth of `dial`; for checks where the client's place
        is irrelevant.
        """
        return smtp.dial_to(self.lab.endpoints[port.name])()

    @cached_property
    def lab_context(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the lab's CA only."""
        return trust.tls_context(self.lab.ca_file)

    @cached_property
    def system_context(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the CAs of this machine, and not the lab's."""
        return ssl.create_default_context()

    def smtp(self, port: int, tls: smtp.Tls | None = None) -> Smtp:
        """Open an SMTP session with Postfix, up to the reply to EHLO; `tls` replaces the TLS mode of the port."""
        dial, tls = self.dial(self.lab.defined.name(Role.SUBMISSION), port), tls or TLS_OF[port]
        session = Smtp(dial, name="postfix", tls=tls, context=self.lab_context, helo="client.test")
        session.ehlo()
        return session

    def logged_in(self, port: int, address: str) -> Smtp:
        """Open an SMTP session with Postfix, authenticated as an account."""
        session = self.smtp(port)
        session.login(address, self.password(address).reveal())
        return session

    def box(self, address: str) -> AbstractContextManager[BaseMailBox]:
        """Open an account's mailbox over IMAP."""
        self._opened_mailboxes.add(address)
        return imap.mailbox(self.lab.endpoints["imaps"], self.lab_context, address, self.password(address))

    # ── mails and logs ─────────────────────────────────────────────────────────────────────────────────────────

    def message(self, to: Sequence[str], body: str = "A check's mail.\n", sender: str | None = None) -> EmailMessage:
        """Create a message with a Message-ID by which checks find it, and by which it is removed at exit."""
        subject = f"mailstack check {next(self._count)}"
        return draft.new_message(sender=sender or self.alice, to=to, subject=subject, body=body, mark=self._mark)

    def note_unsent(self) -> None:
        """Remove at exit what the checks left in queues, and its bounces: a mail was not delivered."""
        self._unsent = True
        if self.student in self.lab.definition().addresses():
            self._opened_mailboxes.add(self.student)

    def _sweep(self) -> None:
        with suppress(MailstackError):
            healing.sweep_queues(self.lab, self._mark)

    def _remove_mails(self, address: str) -> None:
        with suppress(MailstackError, OSError), self.box(address) as box:  # a broken lab may refuse the login
            box.delete(box.uids(search_key(self._mark)))

    def log(self, role: Role, seconds: float = ARRIVAL_SECONDS) -> Iterator[str]:
        """Yield a service's log lines since the checks began, then new lines until `seconds` have passed."""

        def follow() -> ServiceLog:
            log = ServiceLog(self.engine, self.container(role), self._started)
            return self.cleanup.enter_context(closing(log))

        return self.once(f"log of {role}", follow).lines(Deadline.after(seconds))
