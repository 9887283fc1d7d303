"""Failures that are caused in labs: what a case is, and the stage that it is played on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import make_msgid

from mailstack.actions import sending
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.model import Deadline
from mailstack.protocol import smtp, trust
from tests.docker.reload import RELOAD

ALICE = "alice@example.com"
# A line that was not logged by then will not be.
HEARD_SECONDS = 60.0


@dataclass(frozen=True)
class Mail:
    """A mail that was sent, and what must become of it for each of its recipients."""

    message_id: str
    sender: str
    expected: Mapping[str, str]  # recipient → delivered, waiting, bounced, …


@dataclass(frozen=True)
class Case:
    """A way to cause a failure: on which lab, how, and the words by which its line is found in the log."""

    fault: str
    lab: str
    says: Sequence[str]  # all in one line; not the entry's own pattern
    act: Callable[[Stage], Sequence[Mail]]
    undo: Callable[[Stage], None] | None = None


@dataclass
class Stage:
    """A lab, and what has been heard of it since the scene began."""

    lab: RunningLab
    begun: float = field(default_factory=time.time)
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def container(self, service: str) -> str:
        return next(each.container for each in self.lab.services() if each.name == service)

    def run(self, service: str, *argv: str, input: bytes | None = None, user: str = "") -> str:
        """Run a program in a service, to a good end; gives what it printed."""
        done = self.lab.engine.execute(self.container(service), list(argv), input=input, user=user)
        assert done.code == 0, (argv, done.stderr)
        return done.stdout

    def reload(self, service: str) -> None:
        """What `postfix reload` does: daemons end, and new ones open their tables (postfix(1)). Waits for all ends."""
        self.run(service, "sh", "-c", RELOAD)

    def without_lmtp(self) -> None:
        """Dovecot's LMTP goes away; all else stays."""
        self.run("dovecot", "doveadm", "service", "stop", "lmtp")

    def with_lmtp(self) -> None:
        """It comes back."""
        now = time.time()
        self.run("dovecot", "doveadm", "reload")
        self.heard("SIGHUP received", since=now)
        # Else Postfix's daemons keep Dovecot's old auth process, until that is killed: the next log-in would fail.
        self.reload("postfix")

    # ── mails ──────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, expected: Mapping[str, str], *, sender: str = ALICE, body: str = "Hello.") -> Sequence[Mail]:
        """`mail -s` on the sender, to all who are expected to get it, or not to."""
        sent = Mail(make_msgid(domain="example.com"), sender, expected)
        letter = sending.letter(self.lab.definition(), sender, list(expected), "A journey", body, [])
        sending.from_sender(self.lab, letter, sent.message_id)
        return [sent]

    def message(
        self, expected: Mapping[str, str], *, sender: str = ALICE, body: str = "Hello.\n"
    ) -> tuple[EmailMessage, Mail]:
        """A message for the stage's own clients to send."""
        message = draft.new_message(sender=sender, to=list(expected), subject="A journey", body=body)
        return message, Mail(str(message["Message-ID"]), sender, expected)

    def smtp(self, port: str = "submission", tls: smtp.Tls = "starttls") -> smtp.Smtp:
        """An SMTP session from this machine."""
        context = trust.tls_context(self.lab.ca_file)
        return smtp.Smtp(smtp.dial_to(self.lab.endpoints[port]), name="localhost", tls=tls, context=context)

    def submit(self, expected: Mapping[str, str], *, sender: str = ALICE, body: str = "Hello.\n") -> Sequence[Mail]:
        """Over port 587, as `sender`."""
        message, sent = self.message(expected, sender=sender, body=body)
        with self.smtp() as session:
            session.login(sender, self.lab.password(sender).reveal())
            session.send_message(message, sender, list(expected))
        return [sent]

    # ── what is heard ──────────────────────────────────────────────────────────────────────────────────────────

    def heard(self, *words: str, since: float | None = None) -> str:
        """The first line since the scene began that has all the words in it, as soon as it is logged."""
        containers = {each.name: each.container for each in self.lab.services()}
        deadline = Deadline.after(HEARD_SECONDS)
        since = self.begun if since is None else since
        with contextlib.closing(self.lab.engine.follow(containers, since=since, deadline=deadline)) as lines:
            for item in lines:
                assert item is not None, f"nobody logged {words} within {deadline.seconds:g} s"
                if all(word in item[1] for word in words):
                    return f"{item[0]} | {item[1]}"
        raise AssertionError(f"the lab ended before anybody logged {words}")

    @contextlib.contextmanager
    def scene(self, undo: Callable[[Stage], None] | None = None) -> Iterator[None]:
        """What begins now; in the end connections that were held are let go, and what was done is undone."""
        self.begun = time.time()
        with self.held:
            try:
                yield
            finally:
                if undo:
                    undo(self)

    def hold(self, service: str, target: Sequence[str], say: Sequence[str], until: bytes) -> None:
        """Keep a connection open from inside a service to `target` (nc(1)): say lines, and hear the answer out."""
        stream = self.held.enter_context(self.lab.engine.stream(self.container(service), ["nc", *target]))
        stream.settimeout(HEARD_SECONDS)
        for line in say:
            stream.sendall(line.encode() + b"\r\n")
        heard = b""
        while until not in heard:
            more = stream.recv(4096)
            assert more, heard
            heard += more
