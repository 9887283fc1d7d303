"""Hops of messages: the lines of one MTA's handling of a message, and the links from hop to hop.

Postfix reuses a queue id once its message has left the queue (postconf(5), enable_long_queue_ids), so a queue id alone
does not identify a hop. Hops are linked by the logs: “queued as” another queue id, a notice's queue id, the queue id of
a requeued message. If such a line is lost, they are linked by the Message-ID.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mailstack.trace.events import Event, quoted

# The largest difference, in seconds, between the clocks of two hosts, and between two lines about one delivery.
APART = 300.0
# The largest time, in seconds, between an MTA's line about a reply and the line of the MTA that received it.
SOON = 5.0

# The largest delay, in seconds, of a process that logs by a longer path (stack/sender/recorder).
LATE = 1.0

ENDS = frozenset({"removed", "deleted", "requeued"})
BEGINS = frozenset({"accepted", "handed-in"})


@dataclass(slots=True, eq=False)
class Station:
    """One MTA's handling of a message."""

    service: str
    queue_id: str
    events: list[Event] = field(default_factory=list)
    saved: list[Event] = field(default_factory=list)  # events of Dovecot
    told: list[Event] = field(default_factory=list)  # refusals logged by the next MTA
    parent: Station | None = None
    children: list[Station] = field(default_factory=list)
    notice: bool = False
    guessed: bool = False  # linked to its parent by the Message-ID, because the line with the queue id is lost

    @property
    def message_id(self) -> str:
        return next((event.message_id for event in self.events if event.kind == "named"), "")

    @property
    def sender(self) -> str | None:
        """Its envelope sender; None if no line has it."""
        return next((event.sender for event in self.events if event.sender is not None), None)

    @property
    def begun(self) -> float | None:
        return next((event.at for event in self.events if event.at is not None), None)

    @property
    def ended(self) -> float | None:
        """When it last left the queue."""
        return next((event.at for event in reversed(self.events) if event.kind in ("removed", "deleted")), None)

    @property
    def position(self) -> int:
        return self.events[0].line.position

    def ancestors(self) -> Iterator[Station]:
        """Yield the hops before this one, the nearest first; a crafted log has thousands of them."""
        station = self.parent
        while station is not None:
            yield station
            station = station.parent

    @property
    def depth(self) -> int:
        return sum(1 for _ in self.ancestors())

    def has(self, *kinds: str) -> bool:
        return any(event.kind in kinds for event in self.events)

    def first(self, kind: str) -> Event | None:
        return next((event for event in self.events if event.kind == kind), None)

    @property
    def of_notice(self) -> bool:
        """Whether it carries a notice to the sender, and not the message itself."""
        return self.notice or any(station.notice for station in self.ancestors())

    def family(self) -> list[Station]:
        """Return this hop and all that follow from it."""
        found, left = [], [self]
        while left:
            found.append(left.pop())
            left += reversed(found[-1].children)
        return found

    def attempts(self) -> list[Event]:
        """Return the last delivery attempt for each recipient, in the order of the first attempts.

        An address that two aliases lead to is tried twice, and receives the message once.
        """
        found: dict[tuple[str, str], Event] = {}
        for event in self.events:
            if event.kind == "attempt" and event.status not in ("deliverable", "undeliverable"):
                found[event.recipient, event.original] = event
        return list(found.values())


def stations(every: Iterable[Event]) -> list[Station]:
    found: list[Station] = []
    current: dict[tuple[str, str], Station] = {}
    for event in every:
        key = (event.service, event.queue_id)
        station = current.get(key)
        if station is None or _another(station, event):
            station = Station(*key)
            current[key] = station
            found.append(station)
        station.events.append(event)
    return found


def _another(station: Station, event: Event) -> bool:
    """Whether an event with the same queue id belongs to another message."""
    if event.kind in BEGINS and station.has(*BEGINS, "named", *ENDS):
        return True
    if event.kind == "named" and station.message_id not in ("", event.message_id):
        return True
    if event.kind == "notice" or not station.has("removed", "deleted"):
        return False
    # Lines of two processes may be out of order by a moment: a delivery attempt is never the first event of a message.
    late = event.at is not None and station.ended is not None and 0 <= event.at - station.ended <= LATE
    return event.kind != "attempt" or not late


def join(stations: Sequence[Station]) -> None:
    by_id: dict[str, list[Station]] = {}
    for station in stations:
        by_id.setdefault(station.queue_id, []).append(station)
    for station in stations:
        for event in station.events:
            if event.next_id:
                notice = event.kind == "notice"
                child = _nearest(station, event, by_id.get(event.next_id, ()), same_host=notice)
                if child:
                    _adopt(station, child, notice=notice)
            elif event.kind == "handed-in" and event.original:
                before = _nearest(station, event, by_id.get(event.original, ()), same_host=True)
                if before:
                    _adopt(before, station)
    _join_by_message(stations)


def _join_by_message(stations: Sequence[Station]) -> None:
    """Link hops whose “queued as” line is lost: the same Message-ID at the next host, soon after."""
    for child in stations:
        if child.parent or not child.message_id or child.has("handed-in"):
            continue
        candidates = [
            station
            for station in stations
            if station.service != child.service
            and station.message_id == child.message_id
            and _close(station.begun, child.begun)
            and (station.begun or 0) <= (child.begun or 0)
            and all(each.notice for each in station.children)
            and not any(event.next_id for event in station.attempts())
            and not _descends(station, child)
            and not station.has("refused")
        ]
        if candidates:
            _adopt(min(candidates, key=lambda station: (child.begun or 0) - (station.begun or 0)), child, guessed=True)


def _nearest(of: Station, event: Event, candidates: Sequence[Station], *, same_host: bool) -> Station | None:
    fitting = [
        station
        for station in candidates
        if station is not of
        and (not same_host or station.service == of.service)
        and (same_host or "" in (of.message_id, station.message_id) or of.message_id == station.message_id)
        and _close(event.at, station.begun)
        and not _descends(of, station)
    ]
    return min(fitting, key=lambda station: abs((event.at or 0) - (station.begun or 0)), default=None)


def _close(one: float | None, other: float | None) -> bool:
    return one is None or other is None or abs(one - other) < APART


def _descends(station: Station, of: Station) -> bool:
    return station is of or any(each is of for each in station.ancestors())


def _adopt(parent: Station, child: Station, *, notice: bool = False, guessed: bool = False) -> None:
    if child.parent is None and child is not parent:
        child.parent, child.notice, child.guessed = parent, notice, guessed
        parent.children.append(child)


def place_saved(stations: Sequence[Station], saved: Sequence[Event]) -> list[Event]:
    """Assign each of Dovecot's events to the hop that delivered it; return those without one."""
    sessions = {event.session: station for station in stations for event in station.events if event.session}
    strays = []
    for event in saved:
        station = sessions.get(event.session) if event.session else None
        if station is None:
            same = [s for s in stations if s.message_id == event.message_id and _close(s.begun, event.at)]
            # The hop that delivered to this user, or else the last one before the event: its line may be lost.
            exact = [s for s in same if any(each.recipient == event.recipient for each in s.attempts())]
            before = [s for s in same if (s.begun or 0) <= (event.at or 0) + 1]
            station = max(exact or before or same, key=lambda s: (s.begun or 0, s.depth), default=None)
        if station is None:
            strays.append(event)
        else:
            station.saved.append(event)
    return strays


def place_refusals(stations: Sequence[Station], refusals: Sequence[Event]) -> list[Event]:
    """Assign each refusal to the hop that received the same reply; return those without one."""
    attempts = [
        (station, event)
        for station in stations
        for event in station.events
        if event.kind == "attempt" and event.status in ("deferred", "bounced")
    ]
    strays = []
    for refusal in refusals:
        fitting = [
            (station, event)
            for station, event in attempts
            if quoted(event.reply) == refusal.reply
            and event.recipient == (refusal.recipient or event.recipient)
            and event.peer.partition("[")[0].partition(".")[0] == refusal.service.partition(".")[0]
            and refusal.sender in (None, station.sender)
            and _answers(event, refusal)
        ]
        if len(fitting) == 1 and not _another_told(fitting[0][1], refusal, refusals):
            fitting[0][0].told.append(refusal)
        else:
            strays.append(refusal)
    return strays


def _answers(attempt: Event, refusal: Event) -> bool:
    """Whether a failed delivery attempt can have received this refusal: by their times, as clocks may differ."""
    after = (attempt.at or 0) - (refusal.at or 0)
    return -1 < after < (attempt.delays[2] + attempt.delays[3] + 1 if attempt.delays else SOON)


def _another_told(attempt: Event, refusal: Event, refusals: Sequence[Event]) -> bool:
    """Whether another client got the same reply at that time: then the refusal cannot be assigned."""
    return any(
        other is not refusal
        and (other.reply, other.recipient, other.service) == (refusal.reply, refusal.recipient, refusal.service)
        and _answers(attempt, other)
        for other in refusals
    )
