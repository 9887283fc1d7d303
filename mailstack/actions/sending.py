"""Sending a mail through a lab, and waiting for its arrival."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mailstack.actions import tracing
from mailstack.definition import destinations
from mailstack.errors import CheckFailed, DeadlinePassed, EngineError, InputError
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.message.outgoing import Outgoing
from mailstack.model import STUDENT, Deadline, Json, Lab
from mailstack.protocol import imap, smtp, trust
from mailstack.roles import Role
from mailstack.text.addresses import is_address
from mailstack.trace.journey import Journey

# Seconds to wait for a mail before the logs are read: many times the usual delay.
_SOON = 1.0
# The largest difference between the clocks of this machine and the engine's, in seconds.
_APART = 60.0


# A route for one mail that differs from the sender's other mail (stack/sender/master.cf): directly to the provider's
# port 25, or through the relay host with the SMTP dialogue reported to the recorder.
Route = Literal["direct", "recorded"]
ROUTE_HEADER = "X-Mailstack-Route"


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail to send."""

    sender: str
    recipients: tuple[str, ...]
    subject: str
    body: str
    attachments: tuple[Path, ...] = ()
    thread: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # In-Reply-To, … of a reply
    mark: str = ""  # a part of its Message-ID


@dataclass(frozen=True, slots=True)
class Sent:
    """The result: per mailbox, the milliseconds from the start of sending until the mail was seen there."""

    lab: str
    message_id: str
    sender: str
    recipients: tuple[str, ...]
    via: str
    arrived: Mapping[str, float] = field(default_factory=dict)

    def json(self) -> Json:
        """Return the document of `mailstack send --json`."""
        return {
            "lab": self.lab,
            "message_id": self.message_id,
            "from": self.sender,
            "to": list(self.recipients),
            "via": self.via,
            "arrived": {address: round(milliseconds, 1) for address, milliseconds in self.arrived.items()},
        }


class NotArrived(CheckFailed):
    """A mail was returned, or has not reached all recipients before the deadline; `sent` is the result so far."""

    def __init__(self, sent: Sent, message: str, *, trace: str = "", details: str = "") -> None:
        """Set the result and the message; `trace` is the command line that traces the mail."""
        remedy = f"{trace} shows where it is, and why" if trace else ""
        super().__init__(message, remedy=remedy, details=details)
        self.sent = sent


def letter(
    lab: Lab,
    sender: str | None,
    recipients: Sequence[str],
    subject: str,
    body: str,
    attachments: Sequence[Path],
) -> Letter:
    """Return a Letter; the lab's first accounts are the default sender and recipient. Raises InputError."""
    accounts = lab.addresses()
    sender = (accounts[0] if sender is None else sender).lower()
    chosen = tuple(recipients) or (accounts[1 % len(accounts)],)
    for address in (sender, *chosen):
        if not is_address(address):
            raise InputError(f"{address!r} is not a mail address", remedy="write it like alice@example.com")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in subject):
        raise InputError("the subject has control characters in it: it should be one line of text")
    if any(unicodedata.category(character) == "Cs" for character in body):
        raise InputError("the text of the mail is not in UTF-8", remedy="send it with --attach")
    for path in attachments:
        if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in path.name):
            raise InputError(f"{path.name!r} has control characters in its name", remedy="attach it by another name")
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "there is no such file to attach"
            raise InputError(f"{path}: {what}")
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: cannot be read")
    return Letter(sender, chosen, subject, body, tuple(attachments))


def send(lab: RunningLab, letter: Letter, via: str, deadline: Deadline, *, route: Route | None = None) -> Sent:
    """Send the mail, and wait until it is in all its mailboxes of the lab, and until an outside relay has accepted it.

    Raises CheckFailed if it is refused, NotArrived if it is returned or has not arrived before the deadline. `route`
    applies only via the sender.
    """
    message_id = draft.new_id(letter.sender, letter.mark or None)
    outgoing = prepared(letter, message_id)
    started_at, since = time.monotonic(), time.time() - _APART
    if via == "sender":
        if (
            letter.attachments or outgoing.size > lab.definition().limits.message_size
        ):  # limits are queried only then: the query takes longer than sending
            check_size(lab, outgoing)
        from_sender(lab, letter, message_id, route=route)
    else:
        _submit(lab, letter, outgoing)
    boxes, others = set[str](), set(letter.recipients)
    if lab.state.relay == "" or via == "submission":
        ends = [destinations.of(lab.definition(), address) for address in letter.recipients]
        boxes, others = (set().union(*each) for each in zip(*ends, strict=True))
    arrival = _Arrival(lab, message_id, sorted(boxes), started_at)
    sent = Sent(lab.name, message_id, letter.sender, letter.recipients, via, arrival.seen)
    if others or not arrival.complete(Deadline.after(min(_SOON, deadline.remaining()))):
        _explain_missing(sent, arrival, bool(others), since, deadline)
    return sent


class _Arrival:
    """A mail under way to some mailboxes; `seen` has the milliseconds until it was seen in each."""

    def __init__(self, lab: RunningLab, message_id: str, boxes: Sequence[str], started_at: float) -> None:
        self.lab, self.message_id, self.seen = lab, message_id, dict[str, float]()
        self._boxes, self._started_at = boxes, started_at
        self._context = trust.tls_context(lab.ca_file)

    @property
    def missing(self) -> list[str]:
        """The mailboxes in which the mail has not been seen."""
        return [address for address in self._boxes if address not in self.seen]

    def complete(self, deadline: Deadline) -> bool:
        """Wait for the mail in all mailboxes; False if the deadline passes first."""
        for address in self.missing:
            endpoint, password = self.lab.endpoints["imaps"], self.lab.password(address)
            with suppress(DeadlinePassed), imap.mailbox(endpoint, self._context, address, password) as box:
                imap.wait_for_arrival(box, self.message_id, deadline)
                self.seen[address] = (time.monotonic() - self._started_at) * 1000
        return not self.missing


def _explain_missing(sent: Sent, arrival: _Arrival, others: bool, since: float, deadline: Deadline) -> None:
    """Check the logs, then the mailboxes, for the mail. Raises NotArrived.

    `others`: it has recipients without a mailbox in the lab.
    """
    lab, message_id = arrival.lab, arrival.message_id
    journey = _settled_journey(lab, message_id, since, deadline)
    outcome = journey.sentence(time.time()) if journey else "the logs do not show its result"
    failed = journey is not None and journey.settled and not journey.arrived
    complete = arrival.complete(Deadline.after(0) if failed else deadline)
    trace = lab.line("trace", message_id)
    if failed or (complete and others and not (journey and journey.arrived)):
        raise NotArrived(sent, f"the mail {message_id} has not reached all recipients: {outcome}", trace=trace)
    if not complete:
        where = f"the mailbox of {arrival.missing[0]} within {deadline.seconds:g} s"
        raise NotArrived(
            sent, f"the mail {message_id} did not reach {where}", trace=trace, details=outcome if journey else ""
        )


def _settled_journey(lab: RunningLab, message_id: str, since: float, deadline: Deadline) -> Journey | None:
    """Return a mail's journey when it is settled, or its state at the deadline."""
    journey = None
    with suppress(EngineError):  # an overlay's logging driver may not support reading
        for found in tracing.follow(lab, message_id.strip("<>"), deadline, since=since):
            journey = found or journey
        if journey is None:  # no time was left to follow it: use its current state
            with tracing.lab_lines(lab, since) as read:
                journey = next(reversed(tracing.traced(read, message_id).journeys), None)
    return journey


def prepared(letter: Letter, message_id: str, route: Route | None = None) -> Outgoing:
    """Return the letter as a message with this Message-ID."""
    message = draft.new_message(
        sender=letter.sender,
        to=letter.recipients,
        subject=letter.subject,
        body=letter.body,
        thread=letter.thread,
        message_id=message_id,
    )
    if route:
        message[ROUTE_HEADER] = route
    return Outgoing(message, letter.attachments)


def check_size(lab: RunningLab, outgoing: Outgoing) -> None:
    """Compare a mail's size with the limits of the sender's MTA and the provider, before the sender gets it.

    The sender would accept it, and return it after the provider's refusal. Raises CheckFailed, HostError.
    """
    limit_text = lab.engine.execute(
        lab.one(Role.SENDER).container, ["postconf", "-h", "message_size_limit"]
    ).stdout.strip()
    limits = {"the sender": int(limit_text) if limit_text.isdecimal() else 0}
    if not lab.state.relay:
        limits[lab.defined.name(Role.SUBMISSION)] = smtp.size_limit(smtp.dial_to(lab.endpoints["submission"]))
    for host, limit in limits.items():
        if 0 < limit < outgoing.size:
            raise CheckFailed(
                f"the mail has {outgoing.size:,} bytes, and {host} takes {limit:,} at most (SIZE, RFC 1870): not sent",
                remedy="limits: {message_size: …} in an overlay allows more",
            )


def _submit(lab: RunningLab, letter: Letter, message: Outgoing) -> None:
    """Submit over port 587, as the account that owns the sender's address."""
    account = owner(lab, letter.sender)
    smtp.submit(
        smtp.dial_to(lab.endpoints["submission"]),
        trust.tls_context(lab.ca_file),
        account,
        lab.password(account),
        message,
        letter.recipients,
        sender=letter.sender,
    )


def owner(lab: RunningLab, sender: str) -> str:
    """Return the account that may send as `sender`: itself, or an alias's target. Raises InputError."""
    definition = lab.definition()
    owners = [sender, *(target for alias in definition.aliases if alias.address == sender for target in alias.targets)]
    owners = [address for address in owners if address in definition.addresses()]
    if not owners:
        raise InputError(
            f"{sender} belongs to no account of lab “{lab.name}”",
            remedy="accounts: " + ", ".join(definition.addresses()),
        )
    return owners[0]


def from_sender(lab: RunningLab, letter: Letter, message_id: str, *, route: Route | None = None) -> None:
    """Run `mail -s SUBJECT RECIPIENT…` on the sender, with the body on standard input.

    A letter with attachments is passed to `sendmail` as a whole, in pieces. The mail goes through the relay host, or by
    another `route`. Without the relay's credentials (`direct`), an address of the lab's own users is refused as
    envelope sender (553).
    """
    container = lab.one(Role.SENDER).container
    # mailutils takes a recipient that begins with | for a program, and with / for a file, except in angle brackets.
    recipients = [f"<{each}>" if each[0] in "|/" else each for each in letter.recipients]
    if letter.attachments:
        # Passed as a whole, so that no attachment is stored in a file on the sender; sendmail(1).
        whole = prepared(letter, message_id, route)
        argv = ["sendmail", "-i", "-f", letter.sender, "--", *recipients]
        size, data = whole.native_size, whole.native()
    else:
        options = [f"--append={ROUTE_HEADER}: {route}"] if route else []
        # mailutils parses the sender as its own syntax, where ' begins a quotation, except within ".
        sender = f'"{letter.sender}"' if "'" in letter.sender else letter.sender
        argv = ["mail", "-s", letter.subject, "-r", sender, "-a", f"Message-ID: {message_id}", *options, "--"]
        argv += recipients
        body = letter.body.rstrip("\n").encode() + b"\n"
        size, data = len(body), iter([body])
    result = lab.engine.execute(container, ["hand-in", str(size), *argv], user=STUDENT, input=data)
    if result.code != 0 or result.stderr.strip():
        raise CheckFailed(f"`{argv[0]}` on the sender failed: {result.stderr.strip() or f'code {result.code}'}")
