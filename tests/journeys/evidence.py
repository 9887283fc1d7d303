"""What became of mails, by the mailboxes (IMAP) and the queues (postqueue); the logs are not asked."""

from __future__ import annotations

import email.policy
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message

from mailstack.actions import queues, sending
from mailstack.protocol import imap, trust
from tests.docker.faults import Mail, Stage

_QUEUES = {"hold": "held", "deferred": "waiting"}


@dataclass
class Evidence:
    """What is in the mailboxes and in the queues at one moment."""

    copies: Counter[tuple[str, str]] = field(default_factory=Counter)  # (mailbox, Message-ID)
    # Message-ID → recipient → the bounces that name both, by their own Message-IDs
    bounces: dict[str, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    queued: dict[tuple[str, str], str] = field(default_factory=dict)  # (Message-ID, recipient) → queue


def look(stage: Stage, mailboxes: bool = True) -> Evidence:
    """Look everywhere; `mailboxes` False: into the queues alone, while there is no IMAP."""
    found = Evidence()
    _queues(stage, found)
    if mailboxes:
        context = trust.tls_context(stage.lab.ca_file)
        for address in stage.lab.definition().addresses():
            with imap.mailbox(stage.lab.endpoints["imaps"], context, address, stage.lab.password(address)) as box:
                for each in box.fetch(mark_seen=False, bulk=True):
                    message_id = str(each.obj["Message-ID"]).strip()
                    found.copies[address, message_id] += 1
                    if each.obj.get_content_type() == "multipart/report":
                        _bounce(each.obj, message_id, found)
    return found


def _queues(stage: Stage, found: Evidence) -> None:
    for service in queues.services(stage.lab.defined):
        container = stage.container(service)
        for entry in queues.entries(stage.lab.engine, container, service):
            shown = stage.lab.engine.execute(container, ["postcat", "-qh", entry.queue_id])
            if shown.code == 0:  # else it has left the queue since
                headers = email.message_from_string(shown.stdout, policy=email.policy.default)
                for recipient in entry.recipients:
                    found.queued[str(headers["Message-ID"]).strip(), recipient.address] = entry.name


def _bounce(report: Message, own_id: str, found: Evidence) -> None:
    """A delivery report (RFC 3464): whose mail to whom came back."""
    original, failed = "", []
    for part in report.walk():
        if part.get_content_type() == "message/delivery-status":
            for block in part.get_payload():
                assert isinstance(block, Message)
                if block["Final-Recipient"] and block["Action"] == "failed":
                    failed.append(_address(block))
        elif part.get_content_type() == "message/rfc822":
            original = str(part.get_payload(0)["Message-ID"]).strip()  # type: ignore[index]
        elif part.get_content_type() == "text/rfc822-headers":
            original = str(email.message_from_string(str(part.get_payload()))["Message-ID"]).strip()
    for recipient in failed:
        found.bounces[original][recipient].add(own_id)


def _address(block: Message) -> str:
    """Who did not get it, as the mail was sent: RFC 3464, sections 2.3.1 and 2.3.2."""
    return str(block["Original-Recipient"] or block["Final-Recipient"]).partition(";")[2].strip()


def status(stage: Stage, sent: Mail, recipient: str, found: Evidence) -> str:
    """What became of a mail for one recipient; "unknown" where nothing tells (yet)."""
    boxes = sending.mailboxes_for(stage.lab.definition(), recipient)
    if (sent.message_id, recipient) in found.queued:
        return _QUEUES.get(found.queued[sent.message_id, recipient], "unknown")
    if recipient in found.bounces.get(sent.message_id, {}):
        return "bounced"
    if boxes and all(found.copies[box, sent.message_id] for box in boxes):
        return "delivered"
    # Nobody was told: a refused mail's client was, and a bounce to an address outside the lab reached nobody.
    gone = sent.expected[recipient]
    home = sent.sender in stage.lab.definition().addresses()
    return gone if gone == "rejected" or (gone == "bounced" and not home) else "unknown"


def document(stage: Stage, sent: Mail, found: Evidence) -> Mapping[str, object]:
    """A message of the corpus."""
    statuses = {recipient: status(stage, sent, recipient, found) for recipient in sent.expected}
    assert statuses == dict(sent.expected), (statuses, sent)
    notices = {each for ids in found.bounces.get(sent.message_id, {}).values() for each in ids}
    refused = set(statuses.values()) == {"rejected"}
    return {
        "message_id": sent.message_id,
        "from": sent.sender,
        "recipients": statuses,
        "status": only[0] if len(only := sorted(set(statuses.values()))) == 1 else "partly",
        "mailboxes": {box: count for (box, each), count in sorted(found.copies.items()) if each == sent.message_id},
        "notices": sorted(notices),
        "query": next(iter(sent.expected)) if refused else sent.message_id,
    }


def unsettled(stage: Stage, mails: Sequence[Mail], found: Evidence) -> list[tuple[str, str, str]]:
    """Which mails are not where they are expected to be: Message-ID, recipient, what became of it so far."""
    return [
        (sent.message_id, recipient, became)
        for sent in mails
        for recipient, expected in sent.expected.items()
        if (became := status(stage, sent, recipient, found)) != expected
    ]
