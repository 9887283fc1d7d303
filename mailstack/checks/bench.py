"""What checks work with: connections that begin inside the sender's container, and mailboxes to look into.

Postfix trusts no address but its own loopback, so the sender is a client like any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from functools import cached_property
from typing import TYPE_CHECKING

from mailstack import claims, compose, files, mail, queues
from mailstack.checks import NotApplicable, Unmet, expect
from mailstack.dialer import Dialer
from mailstack.errors import DeadlinePassed, MailstackError
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, Deadline, Port
from mailstack.running import RunningLab
from mailstack.secret import Secret

if TYPE_CHECKING:
    from imap_tools import BaseMailBox, MailMessage

# Which TLS a port begins with.
TLS_OF: dict[int, mail.Tls] = {25: "none", 587: "starttls", 465: "implicit"}

# A mail that has not arrived by then will not: deliveries take hundredths of a second.
ARRIVAL_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """A mail that Postfix took: its Message-ID, and the queue id that Postfix gave it."""

    message_id: str
    queue_id: str


@dataclass(frozen=True, slots=True)
class Listener:
    """Somebody outside the lab who would hear it."""

    container: str
    address: str
    network: str


class Bench:
    """A lab on the bench."""

    def __init__(self, lab: RunningLab) -> None:
        self.lab = lab
        self.engine = lab.engine
        self._containers = {name: lab.service(name).container for name in ("postfix", "dovecot", "sender")}
        self._count = itertools.count(1)
        self._mark = f"check-{os.urandom(6).hex()}"
        self._opened: set[str] = set()
        self._begun = int(time.time())
        self._lock = threading.Lock()
        self._listener: Listener | None = None
        self._made: list[str] = []
        self._dialer = Dialer(lambda argv: self.engine.stream(self.container("sender"), argv))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up, and remove what the checks made: their mails, and the listener outside."""
        self._dialer.__exit__()
        with contextlib.suppress(MailstackError, OSError):  # on a broken lab, where there may be no way to them
            self._remove_mails()
        with self._lock:
            for thing in reversed(self._made):
                self.engine.remove(thing)

    # ── who is who ─────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def alice(self) -> str:
        """The lab's first account."""
        return self.lab.definition().addresses()[0]

    @cached_property
    def bob(self) -> str:
        """Its second."""
        return self.others(1)[0]

    def others(self, count: int) -> list[str]:
        """`count` accounts besides the first."""
        found = self.lab.definition().addresses()[1 : count + 1]
        if len(found) < count:
            raise NotApplicable(f"the lab has fewer than {count + 1} accounts")
        return found

    def container(self, service: str) -> str:
        """A service's container."""
        return self._containers[service]

    def password(self, address: str) -> Secret:
        """An account's password."""
        return self.lab.password(address)

    @property
    def relay(self) -> tuple[str, Secret]:
        """The user and the password of the relay in the lab."""
        found = files.read_relay(self.lab.directory.files)
        if found is None:
            raise NotApplicable("the lab has no relay credentials")
        return found

    def blot(self, text: str) -> str:
        """`text` without any of the lab's secrets: a server may have repeated one."""
        return files.blot(self.lab.directory.files, text)

    # ── connections ────────────────────────────────────────────────────────────────────────────────────────────

    def dial(self, service: str, port: int) -> mail.Dial:
        """A connection from the sender's container."""
        return lambda: self._connected(service, port)

    def _connected(self, service: str, port: int) -> socket.socket:
        connection = self._dialer.dial(service, port)
        connection.settimeout(mail.ANSWER_SECONDS)
        return connection

    def published(self, port: Port) -> socket.socket:
        """A connection from this machine, where it makes no difference who connects: a tenth of the cost."""
        return mail.to(self.lab.endpoints[port.name])()

    @cached_property
    def trusting(self) -> ssl.SSLContext:
        """A TLS client that trusts the lab's CA, and nothing else."""
        return mail.tls_context(self.lab.ca_file)

    def smtp(self, port: int, tls: mail.Tls | None = None) -> mail.Smtp:
        """An SMTP session with Postfix, after EHLO; TLS as the port asks for, unless said otherwise."""
        session = mail.Smtp(
            self.dial("postfix", port),
            name="postfix",
            tls=tls or TLS_OF[port],
            context=self.trusting,
            helo="client.test",
        )
        session.ehlo()
        return session

    def logged_in(self, port: int, address: str) -> mail.Smtp:
        """The same, authenticated."""
        session = self.smtp(port)
        session.login(address, self.password(address).reveal())
        return session

    # ── mails ──────────────────────────────────────────────────────────────────────────────────────────────────

    def message(self, to: Sequence[str], body: str = "A check's mail.\n", sender: str | None = None) -> EmailMessage:
        """A message with a subject and an id of its own, by which it is found again and removed at the end."""
        subject = f"mailstack check {next(self._count)}"
        return mail.new_message(sender=sender or self.alice, to=to, subject=subject, body=body, mark=self._mark)

    def submit(
        self,
        message: EmailMessage,
        recipients: Sequence[str],
        *,
        sender: str | None = None,
        port: int = 587,
        raw: bytes | None = None,
    ) -> Accepted:
        """Send a message, as the first account, or without authentication on port 25."""
        sender = self.alice if sender is None else sender
        with self.smtp(port) if port == 25 else self.logged_in(port, self.alice) as session:
            for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients)):
                code, text = session.command(line)
                expect(code == 250, f"{line}: {code} {text}")
            code, reply = session.data(raw if raw is not None else message.as_bytes())
        text = reply.decode(errors="replace")
        expect(code == 250, f"after the message: {code} {text}")
        return Accepted(str(message["Message-ID"]), text.rpartition(" ")[2])

    def arrived(self, address: str, accepted: Accepted, seconds: float = ARRIVAL_SECONDS) -> list[MailMessage]:
        """Every copy in the mailbox, once the mail is there and Postfix has nothing more of it to deliver."""
        with self.box(address) as box:
            try:
                mail.wait_for(box, accepted.message_id, Deadline.after(seconds))
            except DeadlinePassed:
                raise Unmet(f"not in the mailbox of {address} after {seconds:g} s") from None
            self.settled(accepted)
            box.client.noop()
            return mail.find(box, accepted.message_id)

    def copies(self, address: str, accepted: Accepted) -> list[MailMessage]:
        """The copies that are in the mailbox now, once Postfix has nothing more of the mail to deliver."""
        self.settled(accepted)
        with self.box(address) as box:
            return mail.find(box, accepted.message_id)

    def found(self, address: str, message_id: str, seconds: float) -> list[MailMessage]:
        """The copies in the mailbox after waiting for one for up to `seconds`; none if there is none by then."""
        with self.box(address) as box:
            try:
                mail.wait_for(box, message_id, Deadline.after(seconds))
            except DeadlinePassed:
                return []
            return mail.find(box, message_id)

    def bounce(self, address: str, message_id: str, seconds: float) -> str | None:
        """The delivery report in a mailbox that names this mail (RFC 3464); None when none came in `seconds`."""
        deadline = Deadline.after(seconds)
        with self.box(address) as box:
            while True:
                for message in box.fetch('HEADER "Content-Type" "report-type=delivery-status"', mark_seen=False):
                    text = message.obj.as_string()
                    if message_id in text:
                        box.delete([message.uid or ""])
                        return text
                if deadline.passed():
                    return None
                box.idle.wait(timeout=min(deadline.remaining(), 0.2))

    # ── the world outside ──────────────────────────────────────────────────────────────────────────────────────

    def outside_listener(self, port: int) -> Listener:
        """A container that accepts connections on another Docker network of this host; made when first asked for.

        The network is called after the lab, with `-outside`: it is used as it is if somebody has made it before.
        """
        with self._lock:
            if self._listener is None:
                name = f"{compose.project_name(self.lab.name)}-outside"
                labels = {
                    LABEL_LAB: self.lab.name,
                    LABEL_OWNER: self.lab.state.owner,
                    LABEL_EXPIRES: self.lab.state.expires,
                }
                if claims.make_network(self.engine, name, labels):
                    self._made.append(f"network {name}")
                image = f"mailstack/sender:{self.lab.state.tag}"
                self._made.append(f"container {name}")
                container, address = self.engine.listen(name, image, name, labels, port)
                self._listener = Listener(container, address, name)
            return self._listener

    # ── queues and logs ──────────────────────────────────────────────────────────────────────────────────────────

    def heard(self, service: str) -> Iterator[str]:
        """What a service has logged since the checks began, line by line, and for a while what it goes on to log."""
        deadline = Deadline.after(ARRIVAL_SECONDS)
        where = {service: self.container(service)}
        with contextlib.closing(self.engine.follow(where, since=self._begun, deadline=deadline)) as lines:
            for found in lines:
                if found is None:
                    return
                yield found[1].partition(" ")[2]

    def settled(self, accepted: Accepted) -> None:
        """Wait until Postfix has taken the mail out of its queue, by its log: asking the queue costs a process."""
        done = f"]: {accepted.queue_id}: removed"
        expect(any(done in line for line in self.heard("postfix")), f"{accepted.queue_id} is still in Postfix's queue")

    def waiting(self, service: str, queue_id: str) -> queues.Entry:
        """A mail that stands in a service's queue."""
        found = queues.entries(self.engine, self.container(service), service)
        entry = next((each for each in found if each.queue_id == queue_id), None)
        if entry is None:
            raise Unmet(f"{queue_id} is not in the queue of {service}")
        return entry

    def flush(self, entry: queues.Entry) -> None:
        """Have a mail tried now."""
        queues.flush(self.engine, {entry.service: self.container(entry.service)}, [entry])

    def _remove_mails(self) -> None:
        for address in sorted(self._opened):
            with self.box(address) as box:
                box.delete(box.uids(f'HEADER Message-ID "{self._mark}"'))

    def box(self, address: str) -> contextlib.AbstractContextManager[BaseMailBox]:
        """An account's mailbox, over IMAP."""
        self._opened.add(address)
        return mail.mailbox(self.lab.endpoints["imaps"], self.trusting, address, self.password(address))


def sha256(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
