"""Events in the log lines of Postfix and Dovecot.

The patterns follow Postfix's own messages (smtpd(8), cleanup(8), qmgr(8), smtp(8), bounce(8), postsuper(1)) and those
of Dovecot's delivery (mail-deliver: LMTP, LDA, Sieve).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mailstack.trace.lines import Line

# A queue id: short ones are hexadecimal, long ones have no vowels (postconf(5), enable_long_queue_ids).
QUEUE_ID = r"(?:[0-9A-F]{6,20}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,24})"

_WITH_QUEUE_ID = re.compile(rf"(?P<id>{QUEUE_ID}|NOQUEUE): (?P<rest>.*)", re.DOTALL)
_DELIVERY = re.compile(
    r"to=<(?P<to>[^>]*)>, (?:orig_to=<(?P<original>[^>]*)>, )?relay=(?P<relay>[^,]*)"
    r"(?:, conn_use=\d+)?(?:, delay=(?P<delay>[^,]*))?(?:, delays=(?P<delays>[^,]*))?"
    r"(?:, dsn=(?P<dsn>[\d.]+))?, status=(?P<status>[\w-]+)(?: \((?P<reason>.*)\))?",
    re.DOTALL,
)
_REPLY = re.compile(
    r"(?:^|said: |replied: |[:;] )(?P<code>[2-5]\d\d)(?:[ -](?P<enhanced>[245]\.\d{1,3}\.\d{1,3}))?[ -]"
)
_PLAIN_REPLY = re.compile(r"^(?P<code>[2-5]\d\d)(?:[ -](?P<enhanced>[245]\.\d{1,3}\.\d{1,3}))?(?:[ -]|$)")
_NEXT = re.compile(rf"queued as (?P<id>{QUEUE_ID})\b|forwarded as (?P<forwarded>{QUEUE_ID})\b")
_SAVED_SESSION = re.compile(r"<[^<>]*> (?P<session>\S+) Saved")
_CLIENT = re.compile(r"client=(?P<peer>[^,]+)")
_SASL = re.compile(r"sasl_username=(?P<user>[^, ]+)")
# At most fifteen digits: any JSON reader represents such a number exactly (RFC 8259, section 6).
_QUEUED = re.compile(r"from=<(?P<sender>[^>]*)>, size=(?P<size>\d{1,15}), nrcpt=(?P<count>\d{1,15}) \(queue active\)")
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_PICKED_UP = re.compile(r"uid=(?P<uid>\d+) from=<(?P<sender>[^>]*)>(?: orig_id=(?P<original>\w+))?")
_NOTICE = re.compile(
    r"(?P<whom>sender|postmaster) (?P<kind>non-delivery|delivery status|delay) notification: (?P<id>\w+)"
)
_REFUSED = re.compile(
    r"(?P<what>reject|milter-reject|proxy-reject|reject_warning): (?P<stage>[\w -]+?) from (?P<peer>\S+): "
    r"(?P<reply>.*?)"
    r"(?:; from=<(?P<sender>[^<>]*)>)?(?: to=<(?P<to>[^<>]*)>)?(?: proto=(?P<proto>\S+))?(?: helo=<(?P<helo>[^<>]*)>)?"
    r"(?: sasl_method=\S+)?(?: sasl_username=(?P<user>\S+))?$",
    re.DOTALL,
)
# Refusals by the rules of cleanup(8), which have the reply at the end (header_checks(5)).
_RULE = re.compile(
    r"reject: (?P<part>header|body|mime-header|nested-header) (?P<text>.*) from (?P<peer>[^\s;]+);"
    r" from=<(?P<sender>[^<>]*)>(?: to=<(?P<to>[^<>]*)>)?(?: proto=\S+)?(?: helo=<(?P<helo>[^<>]*)>)?: (?P<reply>.*)$",
    re.DOTALL,
)
_ABORTED = re.compile(r"(?P<what>lost connection|timeout) after (?P<command>[^\n]*) from \S+$")
_WARNING = "warning: "  # before the queue id, where Postfix warns about a message
_ACTION = re.compile(r"(?P<what>hold|discard|filter|redirect|milter-hold|milter-discard): (?P<rest>.*)", re.DOTALL)
_TO = re.compile(r" to=<([^<>]*)>")
_ACTIONS = {"hold": "held", "milter-hold": "held", "discard": "discarded", "milter-discard": "discarded"}
_QUEUE_CHANGES = (
    ("placed on hold", "held", "put on hold"),
    ("released from hold", "released", "released from hold"),
    ("requeued", "requeued", "requeued"),
)
_TLS = re.compile(
    r"(?P<trust>Verified|Trusted|Untrusted|Anonymous) TLS connection established "
    r"(?:to|from) (?P<peer>\S+?\](?::\d+)?): (?P<version>\S+) with cipher (?P<cipher>\S+)"
)
_DELIVERED = re.compile(
    r"(?P<service>[a-z][a-z-]*)\((?P<user>[^)]*)\)(?:<\d*>)?(?:<(?P<session>[^>]*)>)?: (?:Info: |Error: |Warning: )?"
    r"(?:sieve: )?msgid=(?P<msgid><[^>]*>|[^:]*)(?:\s?\([^()]*\))?: (?P<what>.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a message at one hop."""

    kind: (
        str  # accepted, handed-in, named, queued, attempt, saved, refused, aborted, cancelled, notice, held, removed, …
    )
    at: float | None  # seconds of the epoch
    service: str  # the host or service that logged it
    program: str
    queue_id: str  # "" for Dovecot, and if Postfix assigned none (NOQUEUE)
    what: str  # description for people
    line: Line
    message_id: str = ""
    sender: str | None = None
    recipient: str = ""
    original: str = ""  # the address before aliases were expanded
    peer: str = ""
    tls: str = ""  # "TLSv1.3 TLS_AES_256_GCM_SHA384, verified"
    sasl_user: str = ""
    status: str = ""  # of a delivery attempt: sent, deferred, bounced, …
    reply: str = ""
    code: int | None = None
    enhanced: str = ""
    delays: tuple[float, ...] = ()  # seconds: before the queue, in it, connecting, transmitting
    delay: float | None = None  # seconds since the message was received
    count: int = 0  # recipients
    size: int = 0  # bytes
    next_id: str = ""  # the queue id at the next hop, or of a notice
    session: str = ""  # session id of Dovecot
    helo: str = ""  # the name that a refused client gave in EHLO


Make = Callable[..., Event]


def tls_of(text: str) -> tuple[str, str] | None:
    """Return the peer and the TLS of a connection, if the line reports TLS."""
    if not (found := _TLS.search(text)):
        return None
    trust = {"Verified": ", verified", "Trusted": ", trusted", "Untrusted": ", not verified"}.get(found["trust"], "")
    return found["peer"], f"{found['version']} {found['cipher']}{trust}"


def reply_of(text: str) -> tuple[int | None, str]:
    """Return the reply code and the enhanced status code (RFC 3463) in a reply, or in a reason that quotes one."""
    if found := _PLAIN_REPLY.match(text) or _REPLY.search(text):
        return int(found["code"]), found["enhanced"] or ""
    return None, ""


def quoted(reason: str) -> str:
    """Return the server's own words in a reason of Postfix: after “said:”, without the “in reply to” at the end."""
    text = reason.rpartition(" said: ")[2] if " said: " in reason else reason
    return re.sub(r" \(in reply to [^)]*\)$", "", text)


def parse_event(line: Line, queue_id: str = "") -> Event | None:
    """Return the event in a line; None if it concerns no message.

    `queue_id` is that of a message that had none yet when the line was logged.
    """
    if line.program == "dovecot" or "/" not in line.program:
        return _dovecot_event(line)
    if not (found := _WITH_QUEUE_ID.match(line.text.removeprefix(_WARNING))):
        if not queue_id:
            return None
        program = line.program.rpartition("/")[2]
        return Event("note", line.at, line.host, program, queue_id, line.text, line)
    queue_id = queue_id if found["id"] == "NOQUEUE" else found["id"]
    return _postfix_event(line, queue_id, found["rest"], line.program.rpartition("/")[2])


def _postfix_event(line: Line, queue_id: str, rest: str, program: str) -> Event | None:
    def event(kind: str, what: str, **more: Any) -> Event:
        return Event(kind, line.at, line.host, program, queue_id, what, line, **more)

    if found := _DELIVERY.match(rest):
        return _attempt_event(event, found)
    if found := _REFUSED.match(rest):
        stage = found["stage"].upper() if found["stage"].islower() else found["stage"]
        warned = found["what"] == "reject_warning"
        return None if warned else _refusal_event(event, found, f"refused at {stage}", found["user"] or "")
    if found := _RULE.match(rest):
        return _refusal_event(event, found, f"refused by a rule for its {found['part']}: {found['text']}", "")
    if not queue_id:
        return None
    return _receipt_event(event, rest, program) or _queue_event(event, rest, program)


def _receipt_event(make: Make, rest: str, program: str) -> Event | None:
    """Return the event of a line about receipt: smtpd(8), pickup(8), cleanup(8), and the first of qmgr(8)."""
    if rest.startswith("message-id="):
        message_id = rest.partition("=")[2]
        return make("named", f"message-id {message_id}", message_id=message_id.strip("<>"))
    if found := _CLIENT.match(rest):
        user = _SASL.search(rest)
        return make("accepted", "accepted", peer=found["peer"], sasl_user=user["user"] if user else "")
    if found := _PICKED_UP.match(rest):
        original_id = found["original"] or ""
        what = (
            f"requeued, previously {original_id}"
            if original_id
            else f"submitted locally by the user with id {found['uid']}"
        )
        return make("handed-in", what, sender=found["sender"], original=original_id)
    if found := _QUEUED.match(rest):
        size, count = int(found["size"]), int(found["count"])
        what = f"in the active queue: {size} bytes for {count} recipient{'s' if count > 1 else ''}"
        return make("queued", what, sender=found["sender"], size=size, count=count)
    return None


def _queue_event(make: Make, rest: str, program: str) -> Event | None:
    """Return the event of a line about a message in the queue: by the queue manager, by rules, by postsuper(1)."""
    if rest == "removed (canceled)":
        return make("cancelled", "given up before it was in the queue")
    if found := _ABORTED.match(rest):
        ended = "the client hung up" if found["what"] == "lost connection" else "the client fell silent"
        return make("aborted", f"{ended} after {found['command']}")
    if rest == "queue file size limit exceeded":
        return make("oversized", "larger than message_size_limit allows")
    if rest == "removed":
        by_hand = program == "postsuper"
        return make("deleted", "deleted by hand") if by_hand else make("removed", "removed from the queue")
    if found := _NOTICE.match(rest):
        return make("notice", f"{found['kind']} notice to the {found['whom']}: {found['id']}", next_id=found["id"])
    for prefix, kind, what in _QUEUE_CHANGES:
        if rest.startswith(prefix):
            return make(kind, what)
    if "status=expired" in rest:
        return make("expired", "expired: too long in the queue")
    if found := _ACTION.match(rest):
        text, _, envelope = found["rest"].partition("; from=<")
        to = _TO.search(envelope)
        return make(
            _ACTIONS.get(found["what"], "note"),
            f"{found['what']}: {text}",
            recipient=to[1] if to else "",
            sender=envelope.partition(">")[0] if envelope else None,
        )
    if program in ("smtp", "lmtp"):
        code, enhanced = reply_of(rest)
        return make("note", rest, code=code, enhanced=enhanced)
    return None


def _refusal_event(event: Make, found: re.Match[str], what: str, user: str) -> Event:
    code, enhanced = reply_of(found["reply"])
    return event(
        "refused",
        what,
        peer=found["peer"],
        reply=found["reply"],
        code=code,
        enhanced=enhanced or reply_of(f"550 {found['reply']}")[1],  # a rule's reply has no reply code
        sender=found["sender"],
        recipient=found["to"] or "",
        sasl_user=user,
        helo=found["helo"] or "",
    )


def _attempt_event(event: Make, found: re.Match[str]) -> Event:
    reason = found["reason"] or ""
    status = found["status"]
    code, enhanced = reply_of(reason)
    next_hop = _NEXT.search(reason)
    session = _SAVED_SESSION.search(reason)
    delays = tuple(each for part in (found["delays"] or "").split("/") if (each := _seconds(part)) is not None)
    return event(
        "attempt",
        {"sent": "sent", "deferred": "not sent: will be retried", "bounced": "not sent: bounced"}.get(status, status),
        recipient=found["to"],
        original=found["original"] or "",
        peer="" if found["relay"] == "none" else found["relay"],
        status=status,
        reply=reason,
        code=code,
        enhanced=enhanced or found["dsn"] or "",
        delay=_seconds(found["delay"] or ""),
        delays=delays if len(delays) == 4 else (),
        next_id=(next_hop["id"] or next_hop["forwarded"]) if next_hop else "",
        session=session["session"] if session else "",
    )


def _seconds(text: str) -> float | None:
    """Return the seconds in a field; None if it is not in Postfix's format."""
    return float(text) if _SECONDS.fullmatch(text) else None


def _dovecot_event(line: Line) -> Event | None:
    if not (found := _DELIVERED.match(line.text)):
        return None
    what = found["what"]
    kind = "note"
    if re.match(r"saved mail to |stored mail into mailbox ", what):
        kind = "saved"
    elif re.match(r"save failed to |failed to store into mailbox ", what):
        kind = "unsaved"
    elif "discard" in what:
        kind = "discarded"
    return Event(
        kind,
        line.at,
        line.host,
        found["service"],
        "",
        what,
        line,
        message_id=found["msgid"].strip("<>"),
        recipient=found["user"],
        session=found["session"] or "",
    )
