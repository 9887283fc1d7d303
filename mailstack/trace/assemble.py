"""Assembly of journeys from collected lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mailstack.trace import events as event_parsing
from mailstack.trace.collect import Collected, Raw
from mailstack.trace.events import Event
from mailstack.trace.hops import END_KINDS, HopLog, assign_refusals, assign_saved, group_by_hop, link_hops
from mailstack.trace.journey import Hop, Journey, Outcome
from mailstack.trace.lines import parse
from mailstack.trace.outcomes import QueuedMail, missing, outcomes, unseen


def assemble(
    collected: Collected, waiting: Sequence[QueuedMail] | None = None, now: float | None = None
) -> list[Journey]:
    """Return the journeys in some lines, oldest first; `waiting` is the current contents of the queues, if known."""
    read = [(raw, event) for raw in collected.raws if (event := _event(raw, now))]
    events = [event for raw, event in read if not raw.unconfirmed]
    unconfirmed = [event for raw, event in read if raw.unconfirmed]
    hops = group_by_hop(event for event in events if event.queue_id)
    link_hops(hops)
    mailbox = assign_saved(hops, [event for event in events if not event.queue_id and event.kind != "refused"])
    refused = [event for event in events if not event.queue_id and event.kind == "refused"]
    unassigned = assign_refusals(hops, [*refused, *unconfirmed])
    journeys = [_journey(hop, waiting, collected) for hop in hops if hop.parent is None]
    journeys += [_refused(event) for event in refused if event in unassigned]
    by_message: dict[str, list[Event]] = {}
    for event in mailbox:
        by_message.setdefault(event.message_id, []).append(event)
    journeys += [_only_mailbox(events) for events in by_message.values()]
    return sorted(journeys, key=lambda journey: journey.started or 0)


def _event(raw: Raw, now: float | None) -> Event | None:
    event = event_parsing.parse_event(parse(raw.text, raw.source, raw.position, now), raw.queue_id)
    if event and raw.tls and event.kind in ("attempt", "accepted", "refused") and event.peer:
        secured = event_parsing.tls_of(raw.tls)
        if secured and secured[0] == event.peer and not _stale(raw, event, now):
            return dataclasses.replace(event, tls=secured[1])
    return event


def _stale(raw: Raw, event: Event, now: float | None) -> bool:
    """Whether the logged TLS belongs to the process's previous connection: it has connected again since."""
    if event.kind != "attempt" or not event.delays or not event.delays[2]:
        return False
    secured = parse(raw.tls, raw.source, 0, now).at
    if secured is None or event.at is None:
        return False
    return event.at - secured > event.delays[2] + event.delays[3] + 2


def _journey(root: HopLog, waiting: Sequence[QueuedMail] | None, collected: Collected) -> Journey:
    family = root.family()
    main = [hop for hop in family if not hop.carries_notice]
    notices = [hop for hop in family if hop.carries_notice]
    queued = {(entry.service, entry.queue_id): entry for entry in waiting or ()}
    ordered = [(event, hop.depth) for hop in family for event in (*hop.events, *hop.saved, *hop.refusals)]
    ordered.sort(key=lambda pair: (pair[0].at or 0, pair[1], pair[0].line.position))
    first = root.first("queued") or root.first("handed-in") or root.first("refused") or root.first("held")
    return Journey(
        message_id=root.message_id
        or next((e.message_id for s in main for e in (*s.events, *s.saved) if e.message_id), ""),
        sender=first.sender if first else next((e.sender for e, _ in ordered if e.sender is not None), None),
        outcomes=tuple(each for hop in main for each in outcomes(hop, queued)),
        notices=tuple(each for hop in notices for each in outcomes(hop, queued)),
        events=tuple(event for event, _ in ordered),
        hops=tuple(_hop(hop) for hop in family),
        missing=tuple(text for hop in family for text in missing(hop, collected)),
        unseen=tuple(name for hop in family for name in unseen(hop, collected)),
        started=min((event.at for event, _ in ordered if event.at is not None), default=None),
    )


def _hop(hop: HopLog) -> Hop:
    ends = [event.at for event in hop.events if event.at is not None]
    return Hop(
        service=hop.service,
        queue_id=hop.queue_id,
        arrived=hop.started,
        left=ends[-1] if ends and hop.has(*END_KINDS) else None,
        relays=tuple(dict.fromkeys(event.peer for event in hop.attempts() if event.peer)),
        notice=hop.carries_notice,
    )


def _refused(event: Event) -> Journey:
    outcome = Outcome(
        recipient=event.recipient,
        original=event.recipient,
        status="rejected" if (event.code or 500) >= 500 else "waiting",
        service=event.service,
        queue_id="",
        reply=event.reply,
        at=event.at,
    )
    return Journey("", event.sender, (outcome,), (), (event,), (), (), (), event.at)


def _only_mailbox(events: Sequence[Event]) -> Journey:
    outcomes = tuple(
        Outcome(
            recipient=event.recipient,
            original=event.recipient,
            status={"saved": "delivered", "discarded": "discarded"}.get(event.kind, "waiting"),
            service=event.service,
            queue_id="",
            reply="" if event.kind == "saved" else event.what,
            at=event.at,
            hops=0,
        )
        for event in events
    )
    missing = ("everything before the mailbox",)
    return Journey(events[0].message_id, None, outcomes, (), tuple(events), (), missing, (), events[0].at)
