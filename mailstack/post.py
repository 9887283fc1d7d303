"""Sending a mail through a lab, and seeing it arrive."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Literal

from mailstack import mail
from mailstack.addresses import is_address
from mailstack.errors import CheckFailed, DeadlinePassed, InputError
from mailstack.model import Deadline, Json, Lab
from mailstack.running import RunningLab

STUDENT = "student"  # the user of the sender's machine

# Another way for one mail from the sender than the others go (stack/sender/master.cf): straight to the provider's
# port 25, or by the relay with the dialogue told to whoever records it.
Route = Literal["direct", "recorded"]
ROUTE_HEADER = "X-Mailstack-Route"


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail to be sent."""

    sender: str
    recipients: tuple[str, ...]
    subject: str
    body: str
    attachments: tuple[Path, ...] = ()
    thread: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # In-Reply-To, … of an answer


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of it: per mailbox, the milliseconds from the start of sending until it was seen there."""

    lab: str
    message_id: str
    sender: str
    recipients: tuple[str, ...]
    via: str
    arrived: Mapping[str, float] = field(default_factory=dict)

    def json(self) -> Json:
        """The document of `mailstack send --json`."""
        return {
            "lab": self.lab,
            "message_id": self.message_id,
            "from": self.sender,
            "to": list(self.recipients),
            "via": self.via,
            "arrived": {address: round(milliseconds, 1) for address, milliseconds in self.arrived.items()},
        }


def letter(
    lab: Lab,
    sender: str | None,
    recipients: Sequence[str],
    subject: str,
    body: str,
    attachments: Sequence[Path],
) -> Letter:
    """A Letter, with the lab's first accounts for what was not said. Raises InputError."""
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
        if not path.is_file():
            raise InputError(f"{path}: there is no such file to attach")
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: cannot be read")
    return Letter(sender, chosen, subject, body, tuple(attachments))


def mailboxes_for(lab: Lab, address: str) -> set[str]:
    """The accounts whose mailboxes a mail to `address` ends in: aliases, `+` addresses and catch-alls followed."""
    aliases = {alias.address: alias.targets for alias in lab.aliases}
    accounts = set(lab.addresses())
    catch_alls = {domain.name: domain.catch_all for domain in lab.domains if domain.catch_all}
    found, waiting, seen = set(), [address.lower()], set()
    while waiting:
        each = waiting.pop()
        local, _, domain = each.rpartition("@")
        plain = f"{local.partition('+')[0]}@{domain}"
        if each in seen:
            continue
        seen.add(each)
        if plain in accounts:
            found.add(plain)
        elif plain in aliases:
            waiting.extend(aliases[plain])
        elif catch_all := catch_alls.get(domain):
            waiting.append(catch_all)
    return found


def send(lab: RunningLab, letter: Letter, via: str, deadline: Deadline, *, route: Route | None = None) -> Sent:
    """Send it, and wait for it in every mailbox of the lab that it is for. Raises CheckFailed, DeadlinePassed.

    `route` is for mail that goes via the sender.
    """
    message = mail.new_message(
        sender=letter.sender,
        to=letter.recipients,
        subject=letter.subject,
        body=letter.body,
        attachments=letter.attachments,
        thread=letter.thread,
    )
    message_id = str(message["Message-ID"])
    begun = time.monotonic()
    if via == "sender":
        from_sender(lab, letter, message_id, route=route)
    else:
        _submit(lab, letter, message)
    boxes = sorted(set().union(*(mailboxes_for(lab.definition, address) for address in letter.recipients)))
    arrived = {}
    context = mail.tls_context(lab.ca_file)
    for address in boxes if lab.state.relay == "" or via == "submission" else ():
        with mail.mailbox(lab.endpoints["imaps"], context, address, lab.password(address)) as box:
            try:
                mail.wait_for(box, message_id, deadline)
            except DeadlinePassed as error:
                raise CheckFailed(
                    f"the mail {message_id} did not reach the mailbox of {address} within {deadline.seconds:g} s",
                    remedy=f"mailstack trace -n {lab.name} '{message_id}' tells where it is, and why",
                ) from error
        arrived[address] = (time.monotonic() - begun) * 1000
    return Sent(lab.name, message_id, letter.sender, letter.recipients, via, arrived)


def _submit(lab: RunningLab, letter: Letter, message: EmailMessage) -> None:
    """Over port 587, as the account that owns the sender's address."""
    account = owner(lab, letter.sender)
    mail.submit(
        mail.to(lab.endpoints["submission"]),
        mail.tls_context(lab.ca_file),
        account,
        lab.password(account),
        message,
        letter.recipients,
        sender=letter.sender,
    )


def owner(lab: RunningLab, sender: str) -> str:
    """The account that may send as `sender`: itself, or what an alias leads to. Raises InputError."""
    definition = lab.definition
    owners = [sender, *(target for alias in definition.aliases if alias.address == sender for target in alias.targets)]
    owners = [address for address in owners if address in definition.addresses()]
    if not owners:
        raise InputError(
            f"{sender} belongs to no account of lab “{lab.name}”",
            remedy="accounts: " + ", ".join(definition.addresses()),
        )
    return owners[0]


def from_sender(lab: RunningLab, letter: Letter, message_id: str, *, route: Route | None = None) -> None:
    """`mail -s SUBJECT RECIPIENT…` on the student's machine, the body on its standard input.

    By the relay, or by another `route`. Without the relay's credentials (`direct`) an address of the lab's own users
    is refused as sender (553).
    """
    container = lab.service("sender").container
    options = []
    for number, path in enumerate(letter.attachments):
        # A directory of its own, so that the attachment is called as the file is.
        place = f"/tmp/{time.time_ns()}-{number}/{path.name}"
        copy = ["install", "-D", "-m", "0600", "/dev/stdin", place]
        put = lab.engine.execute(container, copy, user=STUDENT, input=path.read_bytes())
        if put.code != 0:
            raise CheckFailed(f"{path}: could not be copied to the sender: {put.stderr.strip()}")
        # mailutils does not guess a type; what it was told last is the text's, too.
        options += [f"--content-type={mail.type_of(path)}", f"--attach={place}", "--content-type=text/plain"]
    options += [f"--append={ROUTE_HEADER}: {route}"] if route else []
    # It reads the sender as a word of its own language, where ' begins a quotation: within " it does not.
    sender = f'"{letter.sender}"' if "'" in letter.sender else letter.sender
    argv = ["mail", "-s", letter.subject, "-r", sender, "-a", f"Message-ID: {message_id}", *options, "--"]
    # mailutils takes what begins with | for a program, and with / for a file, unless it is in angle brackets.
    recipients = [f"<{each}>" if each[0] in "|/" else each for each in letter.recipients]
    result = lab.engine.execute(
        container, [*argv, *recipients], user=STUDENT, input=letter.body.rstrip("\n").encode() + b"\n"
    )
    if result.code != 0 or result.stderr.strip():
        raise CheckFailed(f"`mail -s` on the sender failed: {result.stderr.strip() or f'code {result.code}'}")
