"""The theory of a mail's parts and hops, demonstrated on the first mail and on the machines' logs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from mailstack.checks.judging import expect
from mailstack.checks.logs import ServiceLog
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.first_mail import BODY, plain
from mailstack.experiment.machines import ARRIVAL_SECONDS
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Steps
from mailstack.model import STUDENT, Deadline
from mailstack.trace.journey import Journey

if TYPE_CHECKING:
    import datetime

steps = Steps()


@steps(
    "parts",
    "A user agent and an MTA on each side",
    row="The parts: user agent and MTA on the sender's side, MTA and user agent on the receiver's.",
    done="Looked for the traces of each part in the first mail's header and in the servers' logs.",
    expected="All four took part: mail, the student's Postfix, the provider's Postfix, and a reader over IMAP.",
    needs=("arrive",),
)
def each_part_takes_part(scene: Scene, show: Evidence) -> None:
    journey = scene.journey(scene.first_mail)
    uid = scene.output("sender", "id", "-u", STUDENT).strip()
    user_agent = scene.first().field("user-agent")  # reads the mail, so that there is a login after it
    with closing(ServiceLog(scene.engine, scene.container("dovecot"))) as log:
        reader = reader_login(log.lines(Deadline.after(ARRIVAL_SECONDS)), scene.first_mail, scene.recipient)
    parts = [
        ("user agent of the sender", user_agent, _seen(journey, "sender", "handed-in")),
        ("MTA of the sender", "Postfix on the student's machine", _seen(journey, "sender", "attempt")),
        ("MTA of the receiver", "Postfix of the provider", _seen(journey, "postfix", "accepted")),
        ("the mailbox", "Dovecot", _seen(journey, "dovecot", "saved")),
        ("user agent of the receiver", "an IMAP client", reader),
    ]
    show.table("the parts, and their traces", ("part", "played by", "seen in the log"), parts)
    missing = [part for part, player, seen in parts if not player or not seen]
    expect(not missing, f"not seen: {', '.join(missing)}")
    expect(f"uid={uid} " in parts[0][2], f"the mail was not submitted by the user {STUDENT}: {parts[0][2]}")


def reader_login(log: Iterable[str], message_id: str, recipient: str) -> str:
    """Return Dovecot's line about the recipient's first login after a mail was saved; "" if the log ends before.

    Earlier logins in the log of a lab that has run for a while did not read this mail.
    """
    saved = False
    for line in log:
        if f"msgid={message_id}: " in line and re.search(r": (saved|stored) mail ", line):
            saved = True
        elif saved and f"Logged in: user=<{recipient.lower()}>" in line:  # auth_username_format
            return line
    return ""


def _seen(journey: Journey, service: str, kind: str) -> str:
    return next((each.line.text for each in journey.events if (each.service, each.kind) == (service, kind)), "")


@steps(
    "message",
    "A message is a header, an empty line, a body",
    row="A message is a header, an empty line, a body.",
    done="Took the first mail from the mailbox, byte for byte.",
    expected="Lines of the form Name: value, each ended by CR LF; then an empty line; then the text that was sent.",
    needs=("arrive",),
)
def message_is_header_and_body(scene: Scene, show: Evidence) -> None:
    header, body = split(scene.first().raw)
    show.text("header", plain(header))
    show.text("an empty line, then the body", plain(body))
    malformed = malformed_lines(header)
    expect(not malformed, f"not a line of a header: {malformed[:1]}")
    expect(body == f"{BODY}\r\n".encode(), f"the body is {body!r}")


def split(raw: bytes) -> tuple[bytes, bytes]:
    """Split a message into header and body, at the first empty line (RFC 5322, section 2.1)."""
    header, empty, body = raw.partition(b"\r\n\r\n")
    expect(empty, "the mail has no empty line")
    return header + b"\r\n", body


def malformed_lines(header: bytes) -> list[str]:
    """Return the lines that are neither a field nor the continuation of one (RFC 5322, section 2.2)."""
    lines = header.decode(errors="replace").removesuffix("\r\n").split("\r\n")
    return [line for line in lines if not re.match(r"[!-9;-~]+:|[ \t]+\S", line)]


@dataclass(frozen=True, slots=True)
class Hop:
    """One Received field (RFC 5321, section 4.4)."""

    source: str  # the client; "" for a user of the machine itself
    by: str
    protocol: str
    queue_id: str
    moment: datetime.datetime


def parse_hops(received: Sequence[str]) -> list[Hop]:
    """Return the hops of a mail, the first one first. Each server puts its Received field above the others."""
    hops = []
    for field in reversed(received):
        clause, _, date = re.sub(r"\s+", " ", field).rpartition(";")
        found = dict(re.findall(r"\b(from|by|with|id) ([^\s()]+)", _no_comments(clause)))
        hops.append(
            Hop(
                found.get("from", ""),
                found.get("by", ""),
                found.get("with", "local"),
                found.get("id", ""),
                parsedate_to_datetime(date.strip()),
            )
        )
    return hops


def _no_comments(text: str) -> str:
    """Remove comments in parentheses, also nested (RFC 5322, section 3.2.2)."""
    while (shorter := re.sub(r"\([^()]*\)", "", text)) != text:
        text = shorter
    return text


@steps(
    "hops",
    "The mail passed several MTAs, and each added its Received field",
    row="Many hops: a mail may pass several MTAs before it reaches its mailbox.",
    done="Counted the Received fields of the delivered mail, and looked for their queue ids in the servers' logs.",
    expected="One field for each hop, in order of time: the student's Postfix, the provider's, and Dovecot; and each "
    "MTA has logged the mail under the queue id that its field has.",
    needs=("arrive",),
)
def each_hop_leaves_its_mark(scene: Scene, show: Evidence) -> None:
    fields = [value for name, value in scene.first().parts[0].fields if name == "received"]
    show.text("the Received fields, the last hop's first", "\n".join(f"Received: {field}" for field in fields))
    hops = parse_hops(fields)
    show.table(
        f"{len(hops)} hops",
        ("hop", "from", "by", "with", "queue id", "time"),
        [
            (n, hop.source or "-", hop.by, hop.protocol, hop.queue_id, f"{hop.moment:%H:%M:%S}")
            for n, hop in enumerate(hops, 1)
        ],
    )
    names = [scene.settings(service)["myhostname"] for service in ("sender", "postfix")]
    servers = [hop.by for hop in hops]
    expect(servers == [*names, "dovecot"], f"the hops are {', '.join(servers) or 'none'}")
    moments = [hop.moment for hop in hops]
    expect(moments == sorted(moments), "the hops are not in order of time")
    logged = [hop.queue_id for hop in scene.journey(scene.first_mail).hops]
    stamped = [hop.queue_id for hop in hops[:-1]]
    expect(stamped == logged, f"the MTAs logged the mail as {', '.join(logged)}, not as {', '.join(stamped)}")
