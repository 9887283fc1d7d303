"""Readiness as a transaction: send a mail, by submission or from the sender, then read it over IMAP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from typing import TYPE_CHECKING

from mailstack.errors import CheckFailed, DeadlinePassed, EngineError, HostError
from mailstack.lab.changes import PROOF_MARK, search_key
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.model import STUDENT, Deadline
from mailstack.protocol import imap, smtp, trust
from mailstack.roles import Role

if TYPE_CHECKING:
    from imap_tools import BaseMailBox

SUBJECT = "mailstack: is this lab ready?"

# Started as soon as the container is, since the engine needs 0.1 s for it. The mail follows an empty line: without one,
# whoever started it has given up. sendmail(1) needs Postfix's configuration, not its processes: pickup(8) finds the
# mail when it starts. By then the configuration is nearly always complete; there is no event for that. An image of
# somebody else has no such file: after three seconds it is tried anyway.
_SENDMAIL = """
read -r line || exit 75
waited=0
while [ ! -e /run/started ] && [ "$waited" -lt 150 ]; do sleep 0.02; waited=$((waited + 1)); done
exec sendmail "$@"
"""
_LATE_SECONDS = 90  # the age of a mail that no proof waits for
_CHECK_SECONDS = 1.0  # how often a wait asks whether it is in vain
_MOST_RECIPIENTS = 3  # that are tried when mailboxes are full


@dataclass(frozen=True, slots=True)
class _Servers:
    """The servers of a lab, which may just be starting. Parameters as in `transaction`."""

    lab: RunningLab
    deadline: Deadline
    dead: Callable[[], bool]
    started: Callable[[Role], None]

    def await_start(self, role: Role) -> None:
        """Wait for the start of the services of a role. Raises DeadlinePassed, also if the proof was cancelled."""
        self.started(role)
        if self.deadline.passed():
            raise DeadlinePassed(f"the services were not started within {self.deadline.seconds:g} s")

    def store(self) -> None:
        """Wait until Dovecot listens. Raises CheckFailed, DeadlinePassed."""
        self.await_start(Role.STORE)
        self._await_greeting("imap", b"a LOGOUT\r\n")

    def provider(self) -> None:
        """Wait until Dovecot and the provider's Postfix listen. Raises CheckFailed, DeadlinePassed.

        Dovecot comes first: an smtpd(8) without SASL server may exit, and master(8) starts none for a minute.
        """
        self.store()
        self.await_start(Role.SUBMISSION)
        self._await_greeting("submission", b"QUIT\r\n")

    def _await_greeting(self, name: str, farewell: bytes) -> None:
        """Wait for a server's greeting (RFC 5321, 4.3.1; RFC 3501, 7.1).

        The published port accepts connections before the server does, and closes them. So the greeting is the only
        event to wait for.
        """
        next_check = Deadline.after(0.5)
        endpoint, seconds = self.lab.endpoints[name], self.deadline.seconds
        while not smtp.greets(smtp.dial_to(endpoint), farewell):
            if self.deadline.passed():
                raise DeadlinePassed(
                    f"no {name} server answered at {endpoint.host}:{endpoint.port} within {seconds:g} s"
                )
            if next_check.passed():
                next_check = Deadline.after(0.5)
                if self.dead():
                    raise CheckFailed(f"lab “{self.lab.name}” did not come up")
            time.sleep(0.02)


def transaction(
    lab: RunningLab,
    deadline: Deadline,
    dead: Callable[[], bool],
    started: Callable[[Role], None] = lambda role: None,
) -> tuple[str, float]:
    """Send a mail from the first account to the last, read and delete it; return its Message-ID and the milliseconds.

    If the recipient's mailbox is full, the account before it is tried.

    A server that has just been started may not listen yet: the connection is retried until the deadline, unless `dead`
    returns True because a service has ended. `started` blocks until the service of a role has been started. Without
    it, a packet to a container whose network is still being set up is lost, and TCP repeats it only after a second.
    Raises CheckFailed, DeadlinePassed.
    """
    sender = lab.defined.addresses()[0]
    context = trust.tls_context(lab.ca_file)
    servers = _Servers(lab, deadline, dead, started)

    def send(recipient: str) -> tuple[str, float]:
        message = _message(sender, recipient)

        def submit() -> float:
            servers.provider()
            started_at = time.monotonic()
            smtp.submit(
                smtp.dial_to(lab.endpoints["submission"]),
                context,
                sender,
                lab.password(sender),
                message,
                [recipient],
                seconds=_patience(deadline),
            )
            return started_at

        return _deliver(servers, recipient, str(message["Message-ID"]), submit)

    with _as_failed_proof():
        return _to_one_with_room(lab, send)


def relayed(
    lab: RunningLab, deadline: Deadline, dead: Callable[[], bool], started: Callable[[Role], None] = lambda role: None
) -> tuple[str, float]:
    """Send a mail from the sender's user through the provider in the lab; read and delete it.

    Parameters, result and errors are those of `transaction`. Not for a relay host outside: see `relay_login`.
    """
    student = f"{STUDENT}@{lab.defined.mailname}"
    servers = _Servers(lab, deadline, dead, started)

    def send(recipient: str) -> tuple[str, float]:
        message = _message(student, recipient)
        handed_over = [time.monotonic()]

        def content() -> Iterator[bytes]:
            # The provider must listen at the first delivery attempt: the next one is half a minute later.
            servers.provider()
            handed_over[0] = time.monotonic()
            yield b"\n" + message.as_bytes()

        def submit() -> float:
            servers.await_start(Role.SENDER)
            argv = ["sh", "-c", _SENDMAIL, "sendmail", "-i", "-N", "never", "-f", student, "--", recipient]
            result = lab.engine.execute(_sender_container(lab), argv, user=STUDENT, input=content())
            if result.code != 0:
                raise CheckFailed(f"sendmail on the sender failed: {result.stderr.strip() or f'code {result.code}'}")
            return handed_over[0]

        return _deliver(servers, recipient, str(message["Message-ID"]), submit)

    try:
        with _as_failed_proof():
            return _to_one_with_room(lab, send)
    except DeadlinePassed:
        text = f"a mail from the sender by its relay host did not arrive within {deadline.seconds:g} s"
        raise DeadlinePassed(text) from None


@contextmanager
def _as_failed_proof() -> Iterator[None]:
    """Turn an error of a server, which may hang or refuse to answer, into CheckFailed; not one of the engine."""
    try:
        yield
    except EngineError:
        raise
    except HostError as error:
        raise CheckFailed(error.happened(), remedy=error.remedy) from None


def _patience(deadline: Deadline) -> float:
    """Return the time limit for each answer of a server, in seconds."""
    return max(1.0, min(smtp.ANSWER_SECONDS, deadline.seconds))


class _MailboxFull(CheckFailed):
    """The recipient of a proof mail has no room for it."""


def _to_one_with_room(lab: RunningLab, send: Callable[[str], tuple[str, float]]) -> tuple[str, float]:
    """Return what `send` returns for the last account, or for the last before it whose mailbox is not full.

    Accounts of the definition alone, not those added later, of tests for example. Raises what `send` raises.
    """
    addresses = lab.defined.addresses()
    recipients = addresses[::-1][:_MOST_RECIPIENTS]
    for recipient in recipients:
        try:
            found = send(recipient)
        except _MailboxFull:
            continue
        if recipient != recipients[0]:  # the first mail was returned to the account that submitted it
            with _mailbox(lab, addresses[0], smtp.ANSWER_SECONDS) as box:
                box.delete(box.uids(search_key(PROOF_MARK)))
        return found
    raise CheckFailed(
        f"no proof mail can arrive: the mailboxes of {', '.join(recipients)} are full",
        remedy="delete mails from one of them, or raise its quota in the definition and run `up` again",
    )


def _mailbox(lab: RunningLab, address: str, seconds: float) -> AbstractContextManager[BaseMailBox]:
    context = trust.tls_context(lab.ca_file)
    return imap.mailbox(lab.endpoints["imaps"], context, address, lab.password(address), seconds)


def _deliver(servers: _Servers, recipient: str, message_id: str, submit: Callable[[], float]) -> tuple[str, float]:
    """Submit a mail, read it from its mailbox and delete it; return its Message-ID and the milliseconds.

    `submit` returns its start.
    """
    lab, deadline = servers.lab, servers.deadline
    # In parallel: the first answer and the first log-in of a server take some 10 ms each.
    with ThreadPoolExecutor(1) as pool:
        submitted = pool.submit(submit)
        servers.store()
        with _mailbox(lab, recipient, _patience(deadline)) as box:
            started_at = submitted.result()
            while True:
                try:
                    arrival = imap.wait_for(box, message_id, Deadline.after(min(_CHECK_SECONDS, deadline.remaining())))
                    break
                except DeadlinePassed:
                    if imap.is_full(box):
                        raise _MailboxFull(f"the mailbox of {recipient} is full") from None
                    if servers.dead():
                        raise CheckFailed(f"lab “{lab.name}” did not come up") from None
                    if deadline.passed():
                        raise DeadlinePassed(
                            f"the mail {message_id} was not in the mailbox after {deadline.seconds:g} s"
                        ) from None
            milliseconds = (time.monotonic() - started_at) * 1000
            if arrival.uid:
                box.delete([arrival.uid])
            # And what came too late for an earlier proof (RFC 5032).
            box.delete(box.uids(f'OLDER {_LATE_SECONDS} HEADER Message-ID "{PROOF_MARK}"'))
    return message_id, milliseconds


def sender(lab: RunningLab, deadline: Deadline, started: Callable[[Role], None] = lambda role: None) -> str:
    """Wait until the sender's Postfix listens and the provider's has been started; return the sender's container id.

    The log line of the sender's master(8) shows that it listens. A probe inside the container would be one more process
    for the engine to start while it starts the containers. The engine's DNS knows the provider's name once the provider
    has been started. `started` is as in `transaction`. Raises CheckFailed when the container has ended, DeadlinePassed.
    """
    started(Role.SENDER)
    patience = Deadline.after(min(deadline.remaining(), deadline.seconds))
    container = _sender_container(lab)
    try:
        listens = lab.engine.prints(container, "daemon started", patience.seconds)
    except HostError:  # it ended between the two queries
        raise CheckFailed(f"lab “{lab.name}” did not come up") from None
    if not listens and patience.passed():
        raise DeadlinePassed(f"the sender's Postfix did not listen within {patience.seconds:g} s")
    if not listens:
        raise CheckFailed(f"lab “{lab.name}” did not come up")
    started(Role.SUBMISSION)
    return container


def _sender_container(lab: RunningLab) -> str:
    try:
        return lab.one(Role.SENDER).container
    except HostError:  # it does not run
        raise CheckFailed(f"lab “{lab.name}” did not come up") from None


def _message(sender: str, recipient: str) -> EmailMessage:
    body = "This mail proves it.\n"
    return draft.new_message(sender=sender, to=[recipient], subject=SUBJECT, body=body, mark=PROOF_MARK)
