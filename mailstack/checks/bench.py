"""The lab under check: its accounts, connections that begin inside the sender's container, mailboxes and logs.

Postfix trusts no address but its own loopback, so the sender is a client like any other.
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

from mailstack.actions import sending
from mailstack.checks.judging import NotApplicable
from mailstack.checks.logs import ServiceLog
from mailstack.checks.once import Once
from mailstack.config import files
from mailstack.engine.dialer import Dialer
from mailstack.errors import MailstackError
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.model import Deadline, Port
from mailstack.protocol import imap, smtp, trust
from mailstack.protocol.smtp import Smtp
from mailstack.secret import Secret

if TYPE_CHECKING:
    from imap_tools import BaseMailBox

# How TLS begins on a port.
TLS_OF: dict[int, smtp.Tls] = {25: "none", 587: "starttls", 465: "implicit"}

# How long a mail may take, and a line in a log: deliveries take hundredths of a second.
ARRIVAL_SECONDS = 8.0


class Bench:
    """A running lab, with what checks need to try it. Leaving `with` removes what the checks made.

    >>> with Bench(RunningLab("lab")) as bench:
    ...     results = checks.run(bench, checks.chosen(["tls"]), lambda result: None)
    """

    def __init__(self, lab: RunningLab) -> None:
        self.lab = lab
        self.engine = lab.engine
        self.once = Once()
        self.cleanup = ExitStack()  # what is undone in the end
        self._containers = {name: lab.service(name).container for name in ("postfix", "dovecot", "sender")}
        self._count = itertools.count(1)
        self._mark = f"check-{os.urandom(6).hex()}"
        self._opened: set[str] = set()  # accounts whose mailboxes were looked into
        self._started = int(time.time())
        self._dialer = self.cleanup.enter_context(
            Dialer(lambda argv: self.engine.stream(self.container("sender"), argv))
        )

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        """Close connections, and remove the checks' mails and whatever else they made."""
        with ThreadPoolExecutor() as pool:
            cleanup = pool.submit(self.cleanup.close)
            list(pool.map(self._remove_mails, sorted(self._opened)))
            cleanup.result()

    # ── accounts and services ──────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def alice(self) -> str:
        """The lab's first account."""
        return self.lab.definition().addresses()[0]

    @cached_property
    def bob(self) -> str:
        """The lab's second account."""
        return self.others(1)[0]

    def others(self, count: int) -> list[str]:
        """Return `count` accounts besides the first."""
        found = self.lab.definition().addresses()[1 : count + 1]
        if len(found) < count:
            raise NotApplicable(f"the lab has fewer than {count + 1} accounts")
        return found

    @property
    def student(self) -> str:
        """The address of the user of the sender's machine; there may be no account of this name."""
        return f"{sending.STUDENT}@{self.lab.definition().mailname}"

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self._containers[service]

    def password(self, address: str) -> Secret:
        """Return an account's password."""
        return self.lab.password(address)

    @property
    def relay(self) -> tuple[str, Secret]:
        """The user and the password of the relay in the lab."""
        found = files.read_relay(self.lab.directory.files)
        if found is None:
            raise NotApplicable("the lab has no relay credentials")
        return found

    def refuse_outside_relay(self) -> None:
        """Raise NotApplicable when the sender relays through a provider outside, for which its network is open."""
        if self.lab.state.relay:
            raise NotApplicable("the lab relays through a provider outside")

    def blot(self, text: str) -> str:
        """Return `text` without the lab's secrets: a server may have repeated one."""
        return files.blot(self.lab.directory.files, text)

    # ── connections ────────────────────────────────────────────────────────────────────────────────────────────

    def dial(self, service: str, port: int) -> smtp.Dial:
        """Return what connects to a port of a service from the sender's container."""

        def connect() -> socket.socket:
            connection = self._dialer.dial(service, port)
            connection.settimeout(smtp.ANSWER_SECONDS)
            return connection

        return connect

    def published(self, port: Port) -> socket.socket:
        """Connect from this machine: a tenth of the cost, where it makes no difference where the client is."""
        return smtp.to(self.lab.endpoints[port.name])()

    @cached_property
    def trusting(self) -> ssl.SSLContext:
        """A TLS client that trusts the lab's CA, and nothing else."""
        return trust.tls_context(self.lab.ca_file)

    @cached_property
    def unknowing(self) -> ssl.SSLContext:
        """A TLS client that trusts this machine's CAs, and does not know the lab's."""
        return ssl.create_default_context()

    def smtp(self, port: int, tls: smtp.Tls | None = None) -> Smtp:
        """Open an SMTP session with Postfix, up to the reply to EHLO; `tls` replaces what is usual on the port."""
        dial, tls = self.dial("postfix", port), tls or TLS_OF[port]
        session = Smtp(dial, name="postfix", tls=tls, context=self.trusting, helo="client.test")
        session.ehlo()
        return session

    def logged_in(self, port: int, address: str) -> Smtp:
        """Open an SMTP session with Postfix, authenticated as an account."""
        session = self.smtp(port)
        session.login(address, self.password(address).reveal())
        return session

    def box(self, address: str) -> AbstractContextManager[BaseMailBox]:
        """Open an account's mailbox, over IMAP."""
        self._opened.add(address)
        return imap.mailbox(self.lab.endpoints["imaps"], self.trusting, address, self.password(address))

    # ── mails and logs ─────────────────────────────────────────────────────────────────────────────────────────

    def message(self, to: Sequence[str], body: str = "A check's mail.\n", sender: str | None = None) -> EmailMessage:
        """Make a message with a Message-ID by which it is found again, and removed in the end."""
        subject = f"mailstack check {next(self._count)}"
        return draft.new_message(sender=sender or self.alice, to=to, subject=subject, body=body, mark=self._mark)

    def _remove_mails(self, address: str) -> None:
        with suppress(MailstackError, OSError), self.box(address) as box:  # a broken lab may not let anybody in
            box.delete(box.uids(f'HEADER Message-ID "{self._mark}"'))

    def log(self, service: str, seconds: float = ARRIVAL_SECONDS) -> Iterator[str]:
        """Yield what a service has logged since the checks began, then new lines until `seconds` have passed."""

        def follow() -> ServiceLog:
            log = ServiceLog(self.engine, self.container(service), self._started)
            return self.cleanup.enter_context(closing(log))

        return self.once(f"log of {service}", follow).lines(Deadline.after(seconds))
