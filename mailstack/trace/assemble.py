"""Assembly of journeys from collected lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mailstack.trace import events as reading
from mailstack.trace.collect import Collected, Raw
from mailstack.trace.events import Event
from mailstack.trace.journey import Hop, Journey, Outcome
from mailstack.trace.lines import parse
from mailstack.trace.outcomes import Waiting, missing, outcomes, unseen
from mailstack.trace.stations import ENDS, Station, join, place_refusals, place_saved, stations


def assemble(collected: Collected, waiting: Sequence[Waiting] | None = None, now: float | None = None) -> list[Journey]:
    """Return the journeys in some lines, oldest first; `waiting` is the current contents of the queues, if known."""
    read = [(raw, event) for raw in collected.raws if (event := _event(raw, now))]
    every = [event for raw, event in read if not raw.maybe]
    maybe = [event for raw, event in read if raw.maybe]
    found = stations(event for event in every if event.queue_id)
    join(found)
    mailbox = place_saved(found, [event for event in every if not event.queue_id and event.kind != "refused"])
    refused = [event for event in every if not event.queue_id and event.kind == "refused"]
    strays = place_refusals(found, [*refused, *maybe])
    journeys = [_journey(station, waiting, collected) for station in found if station.parent is None]
    journeys += [_refused(event) for event in refused if event in strays]
    by_message: dict[str, list[Event]] = {}
    for event in mailbox:
        by_message.setdefault(event.message_id, []).append(event)
    journeys += [_only_mailbox(events) for events in by_message.values()]
    return sorted(journeys, key=lambda journey: journey.begun or 0)


def _event(raw: Raw, now: float | None) -> Event | None:
    event = reading.of(parse(raw.text, raw.source, raw.position, now), raw.queue_id)
    if event and raw.tls and event.kind in ("attempt", "accepted", "refused") and event.peer:
        secured = reading.tls_of(raw.tls)
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


def _journey(root: Station, waiting: Sequence[Waiting] | None, collected: Collected) -> Journey:
    family = root.family()
    main = [station for station in family if not station.of_notice]
    told = [station for station in family if station.of_notice]
    queued = {(entry.service, entry.queue_id): entry for entry in waiting or ()}
    keyed = [(event, station.depth) for station in family for event in (*station.events, *station.saved, *station.told)]
    keyed.sort(key=lambda pair: (pair[0].at or 0, pair[1], pair[0].line.position))
    first = root.first("queued") or root.first("handed-in") or root.first("refused") or root.first("held")
    return Journey(
        message_id=root.message_id
        or next((e.message_id for s in main for e in (*s.events, *s.saved) if e.message_id), ""),
        sender=first.sender if first else next((e.sender for e, _ in keyed if e.sender is not None), None),
        outcomes=tuple(each for station in main for each in outcomes(station, queued)),
        notices=tuple(each for station in told for each in outcomes(station, queued)),
        events=tuple(event for event, _ in keyed),
        hops=tuple(_hop(station) for station in family),
        missing=tuple(text for station in family for text in missing(station, collected)),
        unseen=tuple(name for station in family for name in unseen(station, collected)),
        begun=min((event.at for event, _ in keyed if event.at is not None), default=None),
    )


def _hop(station: Station) -> Hop:
    ends = [event.at for event in station.events if event.at is not None]
    return Hop(
        service=station.service,
        queue_id=station.queue_id,
        arrived=station.begun,
        left=ends[-1] if ends and station.has(*ENDS) else None,
        relays=tuple(dict.fromkeys(event.peer for event in station.attempts() if event.peer)),
        notice=station.of_notice,
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


def _only_mailbox(found: Sequence[Event]) -> Journey:
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
        for event in found
    )
    missing = ("everything before the mailbox",)
    return Journey(found[0].message_id, None, outcomes, (), tuple(found), (), missing, (), found[0].at)
