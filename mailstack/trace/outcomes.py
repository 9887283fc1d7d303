"""The results of a message at a hop, for each recipient, and the lines missing from its logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mailstack.trace.collect import Collected
from mailstack.trace.events import Event
from mailstack.trace.journey import Outcome
from mailstack.trace.stations import BEGINS, ENDS, Station

# Delivery agents for final delivery: a mailbox or a program accepts the message.
_LAST = frozenset({"lmtp", "local", "virtual", "pipe"})


@dataclass(frozen=True, slots=True)
class Waiting:
    """A mail in a queue, with its recipients."""

    service: str
    queue_id: str
    name: str  # deferred, hold, active, incoming, maildrop
    recipients: tuple[tuple[str, str], ...]  # address, reason
    next_try: float | None = None


def outcomes(station: Station, queued: Mapping[tuple[str, str], Waiting]) -> list[Outcome]:
    """Return the message's result at this hop for each recipient, except for those whose next hop has it."""
    found = []
    attempts = station.attempts()
    entry = queued.get((station.service, station.queue_id))
    family = [child for child in station.children if not child.notice]
    passed_on = {child.queue_id: child for child in family}
    for event in attempts:
        child = passed_on.get(event.next_id)
        if event.status == "sent" and child is not None and _tells_of(child, event.recipient):
            continue  # the next hop has the result
        if event.status == "deferred" and any(child.has("handed-in") for child in passed_on.values()):
            continue  # deferred before the message was requeued
        if event.status == "deferred" and any(each.guessed and _tells_of(each, event.recipient) for each in family):
            continue  # the line of a later delivery attempt is lost: the next hop has the message
        found.append(_outcome(station, event, child, entry))
    known = {address for event in attempts for address in (event.recipient, event.original)}
    if station.parent is None or station.guessed:
        refused = [event for event in station.events if event.kind == "refused" and event.recipient not in known]
        found += [_told(station, event, "rejected") for event in refused]
    # Deliveries whose own lines are lost.
    sessions = {event.session for event in attempts if event.session}
    reached = {outcome.recipient for outcome in found}
    for event in station.saved:
        if event.kind == "saved" and event.recipient not in reached and event.session not in sessions:
            found.append(_told(station, event, "delivered"))
            reached.add(event.recipient)
    if entry is not None:
        found += [
            _unfinished(station, address, reason, entry) for address, reason in entry.recipients if address not in known
        ]
    elif not found and not passed_on:
        named = [event.recipient for event in station.events if event.kind in ("held", "discarded") and event.recipient]
        found += [_unfinished(station, address, "", None) for address in dict.fromkeys(named or [""])]
    return found


def _told(station: Station, event: Event, status: str) -> Outcome:
    """Return the result in one line: a refusal, or a mailbox that has the message."""
    return Outcome(
        recipient=event.recipient,
        original=event.recipient,
        status=status,
        service=event.service,
        queue_id=station.queue_id,
        reply=event.reply,
        at=event.at,
        hops=_path(station) if status == "delivered" else 0,
    )


def _tells_of(child: Station, recipient: str) -> bool:
    """Whether the next hop has the result for a recipient, or for all of its recipients."""
    attempts = child.attempts()
    names = {name for event in attempts for name in (event.recipient, event.original)}
    queued = child.first("queued")
    complete = queued is not None and len(attempts) >= queued.count
    return recipient in names or complete or bool(child.children) or bool(child.saved)


def _outcome(station: Station, event: Event, child: Station | None, entry: Waiting | None) -> Outcome:
    status, service, at, queue_id = "in-progress", station.service, event.at, station.queue_id
    if event.status == "sent":
        if child is not None:
            service, queue_id = child.service, child.queue_id
            status = "held" if _held(child) else "in-progress"
        elif event.program == "discard":
            status = "discarded"
        elif event.program in _LAST or not event.peer:
            status = "delivered"
            saved = [each for each in station.saved if each.kind == "saved" and _took(each, event)]
            if saved:
                service, at = saved[-1].service, saved[-1].at
        else:
            status = "handed-over"
    elif event.status == "deferred":
        status = "waiting"
        if station.has("deleted"):
            status = "deleted"
        elif station.has("expired"):
            status = "bounced"
        elif _held(station) or (entry and entry.name == "hold"):
            status = "held"
    elif event.status in ("bounced", "expired"):
        status = "bounced"
    return Outcome(
        recipient=event.recipient,
        original=event.original or event.recipient,
        status=status,
        service=service,
        queue_id=queue_id,
        reply=event.reply,
        at=at,
        hops=_path(station),
        relay=event.peer,
        next_try=entry.next_try if entry and status == "waiting" else None,
    )


def _took(saved: Event, attempt: Event) -> bool:
    """Whether Dovecot saved what Postfix delivered: by the session id, if the reply has it, or by the recipient."""
    return saved.session == attempt.session if attempt.session else saved.recipient == attempt.recipient


def _unfinished(station: Station, address: str, reason: str, entry: Waiting | None) -> Outcome:
    status = "in-progress"
    if station.has("deleted"):
        status = "deleted"
    elif station.has("discarded"):
        status = "discarded"
    elif entry:
        status = {"hold": "held", "deferred": "waiting"}.get(entry.name, "in-progress")
    elif _held(station):
        status = "held"
    return Outcome(
        recipient=address,
        original=address,
        status=status,
        service=station.service,
        queue_id=station.queue_id,
        reply=reason,
        at=station.events[-1].at,
        next_try=entry.next_try if entry and status == "waiting" else None,
    )


def _held(station: Station) -> bool:
    last = [event.kind for event in station.events if event.kind in ("held", "released", *ENDS)]
    return bool(last) and last[-1] == "held"


def _path(station: Station) -> int:
    """Return the number of hops up to this one; a requeued message stays at its hop."""
    return 1 + sum(not each.has("handed-in") for each in (station, *station.ancestors())[:-1])


def missing(station: Station, collected: Collected) -> list[str]:
    """Return descriptions of the lines that are lost, according to the hop's own lines and the coverage of the logs."""
    name = f"{station.service} {station.queue_id}"
    found = [f"{name}: {what}" for what in (*_lost_before(station), *_lost_after(station, collected.mailboxes))]
    if station.guessed and station.parent:
        found.append(f"{station.parent.service} {station.parent.queue_id}: that it was passed on as {station.queue_id}")
    return [*found, *(f"everything about {name}, as which it was passed on" for name in unseen(station, collected))]


def unseen(station: Station, collected: Collected) -> list[str]:
    """Return the queue ids given by next hops whose host has its logs here, but no line about the message."""
    passed_on = {child.queue_id for child in station.children}
    return [
        event.next_id
        for event in station.events
        if event.next_id not in ("", *passed_on) and (event.kind == "notice" or _logs(event.peer, collected.hosts))
    ]


def _lost_before(station: Station) -> list[str]:
    """Return descriptions of the lost lines about its way into the queue."""
    found = []
    queued = station.first("queued")
    # No line reports the receipt of a notice that the MTA itself made.
    own = station.notice or (station.parent is None and queued is not None and queued.sender == "")
    if not station.has(*BEGINS) and not own:
        found.append("how the message came in")
    if not station.message_id:
        found.append("its Message-ID")
    # A message that cleanup(8) bounces at once, for too many hops for example, never gets into the queue.
    tried = [event for event in station.attempts() if event.program != "cleanup"]
    if queued is None and (tried or (station.has("removed") and not station.attempts())):
        found.append("its entry into the queue")
    return found


def _lost_after(station: Station, mailboxes: bool) -> list[str]:
    """Return descriptions of the lost lines about its way out of the queue."""
    found = []
    queued = station.first("queued")
    settled = len([event for event in station.attempts() if event.status in ("sent", "bounced")])
    if station.has("removed") and not station.has("requeued", "expired", "discarded"):
        if queued and settled < queued.count:
            found.append(f"what became of {queued.count - settled} of {queued.count} recipients")
        elif queued is None and not settled:
            found.append("what became of it")
    if ((queued and settled >= queued.count) or station.has("expired")) and not station.has(*ENDS):
        found.append("that it has left the queue")
    saved = {event.session for event in station.saved}
    for event in station.attempts() if mailboxes else ():
        if event.session and event.status == "sent" and event.session not in saved:
            found.append(f"that it was saved for {event.recipient}")
    returned = [event for event in station.events if event.kind == "notice" and "non-delivery" in event.what]
    if returned and not station.has("expired") and not any(e.status == "bounced" for e in station.attempts()):
        found.append("why it was returned to its sender")
    return found


def _logs(peer: str, logging: frozenset[str]) -> bool:
    """Whether the relay that accepted the message has its logs here."""
    return peer.partition("[")[0] in logging
