"""The results of a message at a hop, for each recipient, and the lines missing from its logs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from mailstack.trace.collect import Collected
from mailstack.trace.events import Event
from mailstack.trace.hops import END_KINDS, START_KINDS, HopLog
from mailstack.trace.journey import Outcome

# Delivery agents for final delivery: a mailbox or a program accepts the message.
_FINAL_AGENTS = frozenset({"lmtp", "local", "virtual", "pipe"})


@dataclass(frozen=True, slots=True)
class QueuedMail:
    """A mail in a queue, with its recipients."""

    service: str
    queue_id: str
    name: str  # deferred, hold, active, incoming, maildrop
    recipients: tuple[tuple[str, str], ...]  # address, reason
    next_try: float | None = None


def outcomes(hop: HopLog, queued: Mapping[tuple[str, str], QueuedMail]) -> list[Outcome]:
    """Return the message's result at this hop for each recipient, except for those whose next hop has it."""
    if hop.cancelled:
        return _of_cancelled(hop)
    found = []
    attempts = hop.attempts()
    entry = queued.get((hop.service, hop.queue_id))
    children = [child for child in hop.children if not child.notice]
    next_hops = {child.queue_id: child for child in children}
    for event in attempts:
        child = next_hops.get(event.next_id)
        if event.status == "sent" and child is not None and _has_outcome_for(child, event.recipient):
            continue  # the next hop has the result
        if event.status == "deferred" and any(child.has("handed-in") for child in next_hops.values()):
            continue  # deferred before the message was requeued
        if event.status == "deferred" and any(
            each.inferred and _has_outcome_for(each, event.recipient) for each in children
        ):
            continue  # the line of a later delivery attempt is lost: the next hop has the message
        found.append(_outcome(hop, event, child, entry))
    known = {address for event in attempts for address in (event.recipient, event.original)}
    if hop.parent is None or hop.inferred:
        refused = [event for event in hop.events if event.kind == "refused" and event.recipient not in known]
        found += [_outcome_of_line(hop, event, "rejected") for event in refused]
    # Deliveries whose own lines are lost.
    sessions = {event.session for event in attempts if event.session}
    reached = {outcome.recipient for outcome in found}
    for event in hop.saved:
        if event.kind == "saved" and event.recipient not in reached and event.session not in sessions:
            found.append(_outcome_of_line(hop, event, "delivered"))
            reached.add(event.recipient)
    if entry is not None:
        found += [
            _unfinished(hop, address, reason, entry) for address, reason in entry.recipients if address not in known
        ]
    elif not found and not next_hops:
        named = [event.recipient for event in hop.events if event.kind in ("held", "discarded") and event.recipient]
        found += [_unfinished(hop, address, "", None) for address in dict.fromkeys(named or [""])]
    return found


def _of_cancelled(hop: HopLog) -> list[Outcome]:
    """Return the results at a hop whose queue never had the message; its client's log has them, if it is here."""
    if hop.parent is not None:
        return []
    if refused := [event for event in hop.events if event.kind == "refused"]:
        return [_outcome_of_line(hop, event, "rejected") for event in refused]
    end = hop.first("oversized") or hop.first("aborted") or hop.events[-1]
    status = "rejected" if end.kind == "oversized" else "aborted"
    return [dataclasses.replace(_outcome_of_line(hop, end, status), reply=end.what)]


def _outcome_of_line(hop: HopLog, event: Event, status: str) -> Outcome:
    """Return the result in one line: a refusal, or a mailbox that has the message."""
    return Outcome(
        recipient=event.recipient,
        original=event.recipient,
        status=status,
        service=event.service,
        queue_id=hop.queue_id,
        reply=event.reply,
        at=event.at,
        hops=_path(hop) if status == "delivered" else 0,
    )


def _has_outcome_for(child: HopLog, recipient: str) -> bool:
    """Whether the next hop has the result for a recipient, or for all of its recipients."""
    attempts = child.attempts()
    names = {name for event in attempts for name in (event.recipient, event.original)}
    queued = child.first("queued")
    complete = queued is not None and len(attempts) >= queued.count
    return recipient in names or complete or bool(child.children) or bool(child.saved)


def _outcome(hop: HopLog, event: Event, child: HopLog | None, entry: QueuedMail | None) -> Outcome:
    status, service, at, queue_id = "in-progress", hop.service, event.at, hop.queue_id
    if event.status == "sent":
        if child is not None:
            service, queue_id = child.service, child.queue_id
            status = "held" if _held(child) else "in-progress"
        elif event.program == "discard":
            status = "discarded"
        elif event.program in _FINAL_AGENTS or not event.peer:
            status = "delivered"
            saved = [each for each in hop.saved if each.kind == "saved" and _delivered_by(each, event)]
            if saved:
                service, at = saved[-1].service, saved[-1].at
        else:
            status = "handed-over"
    elif event.status == "deferred":
        status = "waiting"
        if hop.has("deleted"):
            status = "deleted"
        elif hop.has("expired"):
            status = "bounced"
        elif _held(hop) or (entry and entry.name == "hold"):
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
        hops=_path(hop),
        relay=event.peer,
        next_try=entry.next_try if entry and status == "waiting" else None,
    )


def _delivered_by(saved: Event, attempt: Event) -> bool:
    """Whether Dovecot saved what Postfix delivered: by the session id, if the reply has it, or by the recipient."""
    return saved.session == attempt.session if attempt.session else saved.recipient == attempt.recipient


def _unfinished(hop: HopLog, address: str, reason: str, entry: QueuedMail | None) -> Outcome:
    status = "in-progress"
    if hop.has("deleted"):
        status = "deleted"
    elif hop.has("discarded"):
        status = "discarded"
    elif entry:
        status = {"hold": "held", "deferred": "waiting"}.get(entry.name, "in-progress")
    elif _held(hop):
        status = "held"
    return Outcome(
        recipient=address,
        original=address,
        status=status,
        service=hop.service,
        queue_id=hop.queue_id,
        reply=reason,
        at=hop.events[-1].at,
        next_try=entry.next_try if entry and status == "waiting" else None,
    )


def _held(hop: HopLog) -> bool:
    last = [event.kind for event in hop.events if event.kind in ("held", "released", *END_KINDS)]
    return bool(last) and last[-1] == "held"


def _path(hop: HopLog) -> int:
    """Return the number of hops up to this one; a requeued message stays at its hop."""
    return 1 + sum(not each.has("handed-in") for each in (hop, *hop.ancestors())[:-1])


def missing(hop: HopLog, collected: Collected) -> list[str]:
    """Return descriptions of the lines that are lost, according to the hop's own lines and the coverage of the logs."""
    name = f"{hop.service} {hop.queue_id}"
    found = [f"{name}: {what}" for what in (*_missing_arrival(hop), *_missing_departure(hop, collected.mailboxes))]
    if hop.inferred and hop.parent and not hop.cancelled:
        found.append(f"{hop.parent.service} {hop.parent.queue_id}: its delivery to the next hop, {hop.queue_id}")
    return [*found, *(f"everything about {name}, the next hop" for name in unseen(hop, collected))]


def unseen(hop: HopLog, collected: Collected) -> list[str]:
    """Return the queue ids given by next hops whose host has its logs here, but no line about the message."""
    next_hops = {child.queue_id for child in hop.children}
    return [
        event.next_id
        for event in hop.events
        if event.next_id not in ("", *next_hops) and (event.kind == "notice" or _logs(event.peer, collected.hosts))
    ]


def _missing_arrival(hop: HopLog) -> list[str]:
    """Return descriptions of the lost lines about its way into the queue."""
    found = []
    queued = hop.first("queued")
    # No line reports the receipt of a notice that the MTA itself made.
    own = hop.notice or (hop.parent is None and queued is not None and queued.sender == "")
    if not hop.has(*START_KINDS) and not own:
        found.append("its arrival")
    if not hop.message_id and not hop.cancelled:
        found.append("its Message-ID")
    # A message that cleanup(8) bounces at once, for too many hops for example, never gets into the queue.
    tried = [event for event in hop.attempts() if event.program != "cleanup"]
    if queued is None and (tried or (hop.has("removed") and not hop.attempts())):
        found.append("its entry into the queue")
    return found


def _missing_departure(hop: HopLog, mailboxes: bool) -> list[str]:
    """Return descriptions of the lost lines about its way out of the queue."""
    found = []
    queued = hop.first("queued")
    settled = len([event for event in hop.attempts() if event.status in ("sent", "bounced")])
    if hop.has("removed") and not hop.has("requeued", "expired", "discarded"):
        if queued and settled < queued.count:
            found.append(f"the outcome for {queued.count - settled} of {queued.count} recipients")
        elif queued is None and not settled:
            found.append("its outcome")
    if ((queued and settled >= queued.count) or hop.has("expired")) and not hop.has(*END_KINDS):
        found.append("its removal from the queue")
    saved = {event.session for event in hop.saved}
    for event in hop.attempts() if mailboxes else ():
        if event.session and event.status == "sent" and event.session not in saved:
            found.append(f"its storage in the mailbox of {event.recipient}")
    returned = [event for event in hop.events if event.kind == "notice" and "non-delivery" in event.what]
    if returned and not hop.has("expired") and not any(e.status == "bounced" for e in hop.attempts()):
        found.append("the reason for its return to the sender")
    return found


def _logs(peer: str, logging: frozenset[str]) -> bool:
    """Whether the relay that accepted the message has its logs here."""
    return peer.partition("[")[0] in logging
