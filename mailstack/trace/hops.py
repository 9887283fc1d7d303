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
MAX_CLOCK_SKEW = 300.0
# The largest time, in seconds, between an MTA's line about a reply and the line of the MTA that received it.
MAX_REPLY_DELAY = 5.0

# The largest delay, in seconds, of a process that logs by a longer path (stack/sender/recorder).
MAX_LOG_DELAY = 1.0

END_KINDS = frozenset({"removed", "deleted", "requeued", "cancelled"})
# After these, the queue id may be that of another message.
_GONE = ("removed", "deleted", "cancelled")
START_KINDS = frozenset({"accepted", "handed-in"})


@dataclass(slots=True, eq=False)
class HopLog:
    """One MTA's handling of a message."""

    service: str
    queue_id: str
    events: list[Event] = field(default_factory=list)
    saved: list[Event] = field(default_factory=list)  # events of Dovecot
    refusals: list[Event] = field(default_factory=list)  # refusals logged by the next MTA
    parent: HopLog | None = None
    children: list[HopLog] = field(default_factory=list)
    notice: bool = False
    inferred: bool = False  # linked to its parent by the Message-ID, because the line with the queue id is lost

    @property
    def message_id(self) -> str:
        return next((event.message_id for event in self.events if event.kind == "named"), "")

    @property
    def sender(self) -> str | None:
        """Its envelope sender; None if no line has it."""
        return next((event.sender for event in self.events if event.sender is not None), None)

    @property
    def started(self) -> float | None:
        return next((event.at for event in self.events if event.at is not None), None)

    @property
    def ended(self) -> float | None:
        """When it last left the queue."""
        return next((event.at for event in reversed(self.events) if event.kind in _GONE), None)

    @property
    def position(self) -> int:
        return self.events[0].line.position

    def ancestors(self) -> Iterator[HopLog]:
        """Yield the hops before this one, the nearest first; a crafted log has thousands of them."""
        hop = self.parent
        while hop is not None:
            yield hop
            hop = hop.parent

    @property
    def depth(self) -> int:
        return sum(1 for _ in self.ancestors())

    @property
    def cancelled(self) -> bool:
        """Whether the message never got into the queue: it was refused, or its client gave up."""
        return self.has("cancelled")

    def has(self, *kinds: str) -> bool:
        return any(event.kind in kinds for event in self.events)

    def first(self, kind: str) -> Event | None:
        return next((event for event in self.events if event.kind == kind), None)

    @property
    def carries_notice(self) -> bool:
        """Whether it carries a notice to the sender, and not the message itself."""
        return self.notice or any(hop.notice for hop in self.ancestors())

    def family(self) -> list[HopLog]:
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


def group_by_hop(events: Iterable[Event]) -> list[HopLog]:
    found: list[HopLog] = []
    current: dict[tuple[str, str], HopLog] = {}
    for event in events:
        key = (event.service, event.queue_id)
        hop = current.get(key)
        if hop is None or _starts_new_hop(hop, event):
            hop = HopLog(*key)
            current[key] = hop
            found.append(hop)
        hop.events.append(event)
    return found


def _starts_new_hop(hop: HopLog, event: Event) -> bool:
    """Whether an event with the same queue id belongs to another message."""
    if event.kind in START_KINDS and hop.has(*START_KINDS, "named", *END_KINDS):
        return True
    if event.kind == "named" and hop.message_id not in ("", event.message_id):
        return True
    if event.kind == "notice" or not hop.has(*_GONE):
        return False
    # Lines of two processes may be out of order by a moment: a delivery attempt is never the first event of a message.
    late = event.at is not None and hop.ended is not None and 0 <= event.at - hop.ended <= MAX_LOG_DELAY
    return event.kind != "attempt" or not late


def link_hops(hops: Sequence[HopLog]) -> None:
    by_id: dict[str, list[HopLog]] = {}
    for hop in hops:
        by_id.setdefault(hop.queue_id, []).append(hop)
    for hop in hops:
        for event in hop.events:
            if event.next_id:
                notice = event.kind == "notice"
                child = _nearest(hop, event, by_id.get(event.next_id, ()), same_host=notice)
                if child:
                    _link(hop, child, notice=notice)
            elif event.kind == "handed-in" and event.original:
                before = _nearest(hop, event, by_id.get(event.original, ()), same_host=True)
                if before:
                    _link(before, hop)
    _link_cancelled(hops)
    _link_by_message_id(hops)


def _link_cancelled(hops: Sequence[HopLog]) -> None:
    """Link a hop that never got the message into its queue to the delivery attempt that it ended.

    A rule for a header field may refuse the message before its Message-ID is logged.
    """
    for child in hops:
        if not child.cancelled or child.parent:
            continue
        refusal = child.first("refused")
        fitting = [
            hop
            for hop in hops
            if hop is not child and not _is_within(hop, child)
            for event in hop.events
            if event.kind == "attempt"
            and event.status in ("deferred", "bounced")
            and _host_of(event.peer) == child.service.partition(".")[0]
            and _during(event, child)
            and (refusal is None or quoted(event.reply).endswith(refusal.reply))
            and (refusal is None or refusal.sender in (None, hop.sender))
        ]
        if len(fitting) == 1:
            _link(fitting[0], child)


def _during(attempt: Event, hop: HopLog) -> bool:
    """Whether a hop began during a failed delivery attempt."""
    if attempt.at is None or hop.started is None or not attempt.delays:
        return False
    return -1 < attempt.at - hop.started < attempt.delays[2] + attempt.delays[3] + 1


def _host_of(peer: str) -> str:
    return peer.partition("[")[0].partition(".")[0]


def _link_by_message_id(hops: Sequence[HopLog]) -> None:
    """Link hops whose “queued as” line is lost: the same Message-ID at the next host, soon after."""
    for child in hops:
        if child.parent or not child.message_id or child.has("handed-in"):
            continue
        candidates = [
            hop
            for hop in hops
            if hop.service != child.service
            and hop.message_id == child.message_id
            and _near(hop.started, child.started)
            and (hop.started or 0) <= (child.started or 0)
            and all(each.notice for each in hop.children)
            and not any(event.next_id for event in hop.attempts())
            and not _is_within(hop, child)
            and not hop.has("refused")
        ]
        if candidates:
            _link(min(candidates, key=lambda hop: (child.started or 0) - (hop.started or 0)), child, inferred=True)


def _nearest(of: HopLog, event: Event, candidates: Sequence[HopLog], *, same_host: bool) -> HopLog | None:
    fitting = [
        hop
        for hop in candidates
        if hop is not of
        and (not same_host or hop.service == of.service)
        and (same_host or "" in (of.message_id, hop.message_id) or of.message_id == hop.message_id)
        and _near(event.at, hop.started)
        and not _is_within(of, hop)
    ]
    return min(fitting, key=lambda hop: abs((event.at or 0) - (hop.started or 0)), default=None)


def _near(one: float | None, other: float | None) -> bool:
    return one is None or other is None or abs(one - other) < MAX_CLOCK_SKEW


def _is_within(hop: HopLog, of: HopLog) -> bool:
    return hop is of or any(each is of for each in hop.ancestors())


def _link(parent: HopLog, child: HopLog, *, notice: bool = False, inferred: bool = False) -> None:
    if child.parent is None and child is not parent:
        child.parent, child.notice, child.inferred = parent, notice, inferred
        parent.children.append(child)


def assign_saved(hops: Sequence[HopLog], saved: Sequence[Event]) -> list[Event]:
    """Assign each of Dovecot's events to the hop that delivered it; return those without one."""
    sessions = {event.session: hop for hop in hops for event in hop.events if event.session}
    unassigned = []
    for event in saved:
        hop = sessions.get(event.session) if event.session else None
        if hop is None:
            same = [s for s in hops if s.message_id == event.message_id and _near(s.started, event.at)]
            # The hop that delivered to this user, or else the last one before the event: its line may be lost.
            exact = [s for s in same if any(each.recipient == event.recipient for each in s.attempts())]
            before = [s for s in same if (s.started or 0) <= (event.at or 0) + 1]
            hop = max(exact or before or same, key=lambda s: (s.started or 0, s.depth), default=None)
        if hop is None:
            unassigned.append(event)
        else:
            hop.saved.append(event)
    return unassigned


def assign_refusals(hops: Sequence[HopLog], refusals: Sequence[Event]) -> list[Event]:
    """Assign each refusal to the hop that received the same reply; return those without one."""
    attempts = [
        (hop, event)
        for hop in hops
        for event in hop.events
        if event.kind == "attempt" and event.status in ("deferred", "bounced")
    ]
    unassigned = []
    for refusal in refusals:
        fitting = [
            (hop, event)
            for hop, event in attempts
            if quoted(event.reply) == refusal.reply
            and event.recipient == (refusal.recipient or event.recipient)
            and _host_of(event.peer) == refusal.service.partition(".")[0]
            and refusal.sender in (None, hop.sender)
            and _matches_in_time(event, refusal)
        ]
        if len(fitting) == 1 and not _is_ambiguous(fitting[0][1], refusal, refusals):
            fitting[0][0].refusals.append(refusal)
        else:
            unassigned.append(refusal)
    return unassigned


def _matches_in_time(attempt: Event, refusal: Event) -> bool:
    """Whether a failed delivery attempt can have received this refusal: by their times, as clocks may differ."""
    after = (attempt.at or 0) - (refusal.at or 0)
    return -1 < after < (attempt.delays[2] + attempt.delays[3] + 1 if attempt.delays else MAX_REPLY_DELAY)


def _is_ambiguous(attempt: Event, refusal: Event, refusals: Sequence[Event]) -> bool:
    """Whether another client got the same reply at that time: then the refusal cannot be assigned."""
    return any(
        other is not refusal
        and (other.reply, other.recipient, other.service) == (refusal.reply, refusal.recipient, refusal.service)
        and _matches_in_time(attempt, other)
        for other in refusals
    )
