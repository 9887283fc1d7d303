"""Submit mails and wait for their arrival, for checks of several families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import TYPE_CHECKING

from mailstack.actions import queues
from mailstack.checks.bench import ARRIVAL_SECONDS, Bench
from mailstack.checks.judging import Unmet, expect
from mailstack.errors import DeadlinePassed
from mailstack.model import Deadline
from mailstack.protocol import idle, imap
from mailstack.roles import Role

if TYPE_CHECKING:
    from imap_tools import BaseMailBox, MailMessage


@dataclass(frozen=True, slots=True)
class Accepted:
    """A mail that Postfix accepted: its Message-ID and its queue id."""

    message_id: str
    queue_id: str


def submit(
    bench: Bench,
    message: EmailMessage,
    recipients: Sequence[str],
    *,
    sender: str | None = None,
    port: int = 587,
    raw: bytes | None = None,
) -> Accepted:
    """Send a message as the first account, or without authentication on port 25. Raises Unmet when it is refused.

    `raw` replaces the bytes of the message. `sender` is the envelope sender, by default the first account.
    """
    sender = bench.alice if sender is None else sender
    with bench.smtp(port) if port == 25 else bench.logged_in(port, bench.alice) as session:
        for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients)):
            code, text = session.command(line)
            expect(code == 250, f"{line}: {code} {text}")
        code, reply = session.data(raw if raw is not None else message.as_bytes())
    text = reply.decode(errors="replace")
    expect(code == 250, f"after the message: {code} {text}")
    return Accepted(str(message["Message-ID"]), text.rpartition(" ")[2])


def wait_until_dequeued(bench: Bench, accepted: Accepted) -> None:
    """Wait until Postfix has removed a mail from its queue. Reads the log, since to list the queue costs a process."""
    done = f"]: {accepted.queue_id}: removed"
    expect(any(done in line for line in bench.log(Role.SUBMISSION)), f"{accepted.queue_id} is still in Postfix's queue")


def uids(box: BaseMailBox, message_id: str) -> list[str]:
    """Return the UIDs of every copy of a mail in an open mailbox."""
    return box.uids(f'HEADER Message-ID "{message_id}"')


def _wait_for_copies(bench: Bench, box: BaseMailBox, address: str, accepted: Accepted, seconds: float) -> list[str]:
    try:
        imap.wait_for_arrival(box, accepted.message_id, Deadline.after(seconds))
    except DeadlinePassed:
        raise Unmet(f"not in the mailbox of {address} after {seconds:g} s") from None
    wait_until_dequeued(bench, accepted)
    box.client.noop()
    return uids(box, accepted.message_id)


def count_copies(bench: Bench, address: str, accepted: Accepted) -> int:
    """Count the copies in a mailbox, after the first has arrived and Postfix has removed the mail from its queue."""
    with bench.box(address) as box:
        return len(_wait_for_copies(bench, box, address, accepted, ARRIVAL_SECONDS))


def only_copy(
    bench: Bench, address: str, accepted: Accepted, *, seconds: float = ARRIVAL_SECONDS, whole: bool = True
) -> MailMessage:
    """Return the only copy in a mailbox; just its header unless `whole`. Raises Unmet for no copy and for several."""
    with bench.box(address) as box:
        copies = _wait_for_copies(bench, box, address, accepted, seconds)
        expect(len(copies) == 1, f"{len(copies)} copies of {accepted.queue_id} for {address}")
        return next(iter(box.fetch(f"UID {copies[0]}", mark_seen=False, headers_only=not whole)))


def arrives_once(bench: Bench, address: str, accepted: Accepted) -> str:
    """Return the evidence that a mail arrived exactly once. Raises Unmet."""
    only_copy(bench, address, accepted, whole=False)
    return f"{accepted.queue_id}: 1 copy for {address}"


def count_arrived(bench: Bench, address: str, message_id: str, seconds: float) -> int:
    """Count the copies in a mailbox as soon as there is one, or after `seconds`."""
    with bench.box(address) as box:
        try:
            imap.wait_for_arrival(box, message_id, Deadline.after(seconds))
        except DeadlinePassed:
            return 0
        return len(uids(box, message_id))


def delivery_report(bench: Bench, address: str, message_id: str) -> str | None:
    """Return the delivery report in a mailbox about a mail (RFC 3464); None when none arrives in time."""
    deadline = Deadline.after(ARRIVAL_SECONDS)
    with bench.box(address) as box:
        while True:
            passed = deadline.passed()
            idle.refresh(box)
            for message in box.fetch('HEADER "Content-Type" "report-type=delivery-status"', mark_seen=False):
                text = message.obj.as_string()
                if message_id in text:
                    box.delete([message.uid or ""])
                    return text
            if passed:
                return None
            idle.wait(box, deadline)


def queue_entry(bench: Bench, role: Role, queue_id: str) -> queues.Entry:
    """Return a mail in the queue of the service with a role. Raises Unmet when the queue does not have it."""
    service = bench.lab.defined.name(role)
    for entry in queues.entries(bench.engine, bench.container(role), service):
        if entry.queue_id == queue_id:
            return entry
    raise Unmet(f"{queue_id} is not in the queue of {service}")


def flush(bench: Bench, entry: queues.Entry) -> None:
    """Start a delivery attempt of a queued mail now."""
    queues.flush(bench.engine, {entry.service: bench.lab.service(entry.service).container}, [entry])
