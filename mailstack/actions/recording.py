"""Sending a mail with a record of the SMTP dialogue: from this machine, or from the sender's MTA to its relay."""

from __future__ import annotations

import contextlib
import re
import smtplib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from mailstack.actions import mailboxes, sending
from mailstack.definition import destinations
from mailstack.errors import CheckFailed, DeadlinePassed, HostError
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.message.outgoing import Outgoing, hand_over
from mailstack.model import Deadline, Json, ServiceState
from mailstack.protocol import imap, smtp, trust
from mailstack.protocol.transcript import Blotter, Dialogue, Excerpt, RecordedLine, Speaker, Tls, annotate
from mailstack.roles import Role

VISITOR = "visitor@elsewhere.example"  # on port 25 the lab's own addresses are refused as envelope senders (553)

_VERBS = {"ehlo", "helo", "mail", "rcpt", "data", "quit", "rset"}  # smtplib writes these in lower case
_TLS = re.compile(r"TLS connection established to \S+: (?P<version>\S+) with cipher (?P<cipher>\S+)")
_DELIVERY = re.compile(r"(?P<queue>\w+): to=<(?P<to>[^>]*)>,.* status=(?P<status>\w+) \((?P<reason>.*)\)$")


@dataclass(frozen=True, slots=True)
class Recording:
    """The record of a mail's SMTP dialogue, and the refusals, each in one line."""

    lab: str
    via: str
    message_id: str
    dialogue: Dialogue
    refused: tuple[str, ...] = ()

    def json(self) -> Json:
        """Return the document of `mailstack dialogue --json`."""
        return {
            "lab": self.lab,
            "via": self.via,
            "message_id": self.message_id,
            **self.dialogue.json(),
            "refused": list(self.refused),
        }


def record(lab: RunningLab, letter: sending.Letter, via: str, deadline: Deadline) -> Recording:
    """Send the mail `via` submission (587, STARTTLS, AUTH), smtp (25) or the sender's MTA, and record the dialogue.

    A refusal is part of the record. Raises InputError if the sender is no account's address on submission, CheckFailed
    if there was no dialogue at all, and DeadlinePassed.
    """
    message_id = draft.new_id(letter.sender, letter.mark or None)
    outgoing = sending.prepared(letter, message_id)
    if via == "sender":
        sending.check_size(lab, outgoing)
        dialogue, refused = _from_sender(lab, letter, message_id, deadline)
    else:
        dialogue, refused = _from_this_machine(lab, letter, outgoing, via)
    clean = lab.blotter().clean
    refused = [clean(text) for text in refused]
    if not dialogue.exchanges:
        raise CheckFailed(f"there was no SMTP dialogue: {'; '.join(refused)}", remedy=lab.line("logs"))
    dialogue = replace(
        dialogue,
        exchanges=tuple(replace(each, lines=tuple(map(clean, each.lines))) for each in dialogue.exchanges),
    )
    return Recording(lab.name, via, message_id, dialogue, tuple(refused))


# ── from this machine ──────────────────────────────────────────────────────────────────────────────────────────────


class _Tape:
    """The lines of the dialogue so far, without credentials."""

    def __init__(self) -> None:
        self.said: list[RecordedLine] = []
        self._begun, self._blotter = time.monotonic(), Blotter()

    def take(self, speaker: Speaker, text: str, *, message: bool = False) -> None:
        said = RecordedLine(speaker, text, (time.monotonic() - self._begun) * 1000)
        self.said.append(said if message else self._blotter.clean(said))


class _Recorded(smtp.Smtp):
    """An SMTP session that records its lines on a tape."""

    def __init__(self, tape: _Tape, dial: smtp.Dial, **options: Any) -> None:
        self._tape, self._in_message = tape, False
        self._begun, self._shown = b"", Excerpt()
        super().__init__(dial, **options)

    def putcmd(self, cmd: str, args: str = "") -> None:
        super().putcmd(cmd.upper() if cmd in _VERBS else cmd, args)

    def send(self, s: Any) -> None:
        data = s if isinstance(s, bytes) else s.encode(self.command_encoding)
        if not self._in_message:
            self._tape.take("client", data.decode(errors="replace").rstrip("\r\n"))
        else:
            *whole, self._begun = (self._begun + data).split(b"\r\n")
            for line in whole:
                self._keep(line)
        super().send(s)

    def _keep(self, line: bytes) -> None:
        """Record a line of the message; lines that would not be shown are counted only."""
        text = line.decode(errors="replace")
        for kept in self._shown.end() if line == b"." else self._shown.take(text):
            self._tape.take("client", kept, message=True)
        if line == b".":
            self._tape.take("client", text, message=True)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _Heard(self.sock.makefile("rb"), self._tape)
        code, text = super().getreply()
        self._in_message = code == 354
        return code, text


class _Heard:
    """The server's side of a connection, recorded line by line as smtplib reads it."""

    def __init__(self, file: Any, tape: _Tape) -> None:
        self._file, self._tape = file, tape
        self.close: Callable[[], None] = file.close

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(limit)
        if line:
            self._tape.take("server", line.rstrip(b"\r\n").decode(errors="replace"))
        return line


def _from_this_machine(
    lab: RunningLab, letter: sending.Letter, message: Outgoing, via: str
) -> tuple[Dialogue, list[str]]:
    account = sending.owner(lab, letter.sender) if via == "submission" else ""
    tape, tls = _Tape(), None
    refused: list[str] = []
    try:
        with _Recorded(
            tape,
            smtp.dial_to(lab.endpoints[via]),
            name="localhost",
            tls="starttls" if account else "none",
            context=trust.tls_context(lab.ca_file),
        ) as session:
            if account and session.sock:
                tls = Tls(session.sock.version(), session.sock.cipher()[0])  # type: ignore[attr-defined]
                session.login(account, lab.password(account).reveal())
            refused = list(_envelope_and_message(session, letter, message))
    except smtplib.SMTPResponseException as error:
        refused.append(f"the server refused: {_reply_text(error)}")
    except (smtplib.SMTPException, OSError) as error:
        refused.append(f"the SMTP dialogue was interrupted: {error}")
    port = {"submission": 587, "smtp": 25}[via]
    server = f"{lab.defined.name(Role.SUBMISSION)}:{port}"
    return annotate(tape.said, client="this machine", server=server, tls=tls), refused


def _envelope_and_message(session: _Recorded, letter: sending.Letter, message: Outgoing) -> Iterator[str]:
    """Send the envelope and the message; yield each refusal (RFC 5321, section 3.3)."""
    try:
        refused = hand_over(session, letter.sender, letter.recipients, message)
    except smtplib.SMTPSenderRefused as error:
        yield f"the sender {letter.sender} was refused: {_reply_text(error)}"
        return
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
    except smtplib.SMTPDataError as error:
        yield f"the message was refused: {_reply_text(error)}"
        return
    for recipient, (code, text) in refused.items():
        yield f"the recipient {recipient} was refused: {code} {text.decode(errors='replace')}"


def _reply_text(error: smtplib.SMTPResponseException) -> str:
    text = error.smtp_error
    return f"{error.smtp_code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"


# ── from the sender's MTA ──────────────────────────────────────────────────────────────────────────────────────────


def _from_sender(
    lab: RunningLab, letter: sending.Letter, message_id: str, deadline: Deadline
) -> tuple[Dialogue, list[str]]:
    """Return the dialogue of the sender's Postfix with the provider, as stack/sender/recorder reports it."""
    service, started_at = lab.one(Role.SENDER), time.time()
    lines: dict[str, list[tuple[float, str, str]]] = {}  # per process: time, kind, text
    # The time limit ends the recorder even if this process cannot.
    recorder = ["recorder", str(int(deadline.remaining()) + 2)]
    with lab.engine.stream(service.container, recorder, user="postfix") as stream, stream.makefile("rb") as reports:
        try:
            stream.settimeout(max(deadline.remaining(), 0.001))
            if reports.readline() != b"ready\n":
                remedy = f"{lab.line('up')} replaces the sender"
                raise HostError("the sender cannot record the dialogue", remedy=remedy)
            sending.from_sender(lab, letter, message_id, route="recorded")
            queue_id = _queue_id(lab, service, message_id, started_at - 1, deadline)
            while True:
                stream.settimeout(max(deadline.remaining(), 0.001))
                moment, process, kind, text = reports.readline().decode(errors="replace").rstrip("\n").split(" ", 3)
                if kind != ".":
                    lines.setdefault(process, []).append((float(moment), kind, text))
                elif queue_id in _delivered(lines.get(process, [])):
                    break
        except (TimeoutError, ValueError):
            raise DeadlinePassed(
                f"the sender's MTA had not handed the mail over after {deadline.seconds:g} s",
                remedy=lab.line("logs", service.name),
            ) from None
    return _recorded_dialogue(lab, letter, message_id, lines[process], deadline)


def _queue_id(lab: RunningLab, service: ServiceState, message_id: str, since: float, deadline: Deadline) -> str:
    """Return a mail's queue id at the sender, as soon as cleanup(8) logs it. Raises TimeoutError."""
    named = re.compile(rf" (\w+): message-id={re.escape(message_id)}$")
    containers = {service.name: service.container}
    with contextlib.closing(lab.engine.follow(containers, since=since, deadline=deadline)) as log:
        for line in log:
            if line and (match := named.search(line[1])):
                return match[1]
    raise TimeoutError


def _delivered(lines: list[tuple[float, str, str]]) -> set[str]:
    """Return the queue ids of the mails for which a process of the transport logged a delivery attempt."""
    return {match["queue"] for _, kind, text in lines if kind == "=" and (match := _DELIVERY.match(text))}


def _recorded_dialogue(
    lab: RunningLab, letter: sending.Letter, message_id: str, lines: list[tuple[float, str, str]], deadline: Deadline
) -> tuple[Dialogue, list[str]]:
    started_at = lines[0][0]
    speakers: dict[str, Speaker] = {">": "client", "<": "server"}
    said = [
        RecordedLine(speakers[kind], text, (moment - started_at) * 1000)
        for moment, kind, text in lines
        if kind in speakers
    ]
    logged = [text for _, kind, text in lines if kind == "="]
    tls = next((Tls(match["version"], match["cipher"]) for text in logged if (match := _TLS.search(text))), None)
    deliveries = [match for text in logged if (match := _DELIVERY.match(text))]
    refused = [f"{each['to']} {each['status']}: {each['reason']}" for each in deliveries if each["status"] != "sent"]
    accepted = [each["to"] for each in deliveries if each["status"] == "sent"]
    message = _copy(lab, accepted, message_id, deadline) if accepted else ()
    client, provider = (lab.defined.name(role) for role in (Role.SENDER, Role.SUBMISSION))
    server = lab.state.relay or f"{provider}:587"
    return annotate(said, client=client, server=server, tls=tls, message=message), refused


def _copy(lab: RunningLab, recipients: list[str], message_id: str, deadline: Deadline) -> tuple[str, ...]:
    """Return the message as the sender's MTA sent it: the delivered copy, from that MTA's own Received field on.

    Postfix's debugging log does not contain it (smtp(8)). If no mailbox of the lab has it, a line in brackets says so.
    """
    boxes = sorted(set().union(*(destinations.mailboxes(lab.definition(), address) for address in recipients)))
    unknown = ("[the message: it is in no mailbox of the lab to look at]",)
    if not boxes or lab.state.relay:
        return unknown
    context = trust.tls_context(lab.ca_file)
    with imap.mailbox(lab.endpoints["imaps"], context, boxes[0], lab.password(boxes[0])) as box:
        try:
            uid = imap.wait_for_arrival(box, message_id, deadline)
        except DeadlinePassed:
            return unknown
        shown, kept, started = Excerpt(), list[str](), False
        for line in mailboxes.lines(box, uid):
            started = started or line.startswith("Received: by ")
            kept += shown.take(line) if started else ()
    return (*kept, *shown.end())
