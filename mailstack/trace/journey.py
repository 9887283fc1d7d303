"""The journey of a message, and the verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mailstack import failures
from mailstack.failures import KnownFailure, recognise
from mailstack.model import Json
from mailstack.protocol import status_codes
from mailstack.text.durations import spoken
from mailstack.trace.events import Event, quoted

# The possible results for one recipient; the worst first, so that the sentence begins with it.
STATUSES = (
    *("rejected", "bounced", "aborted", "waiting", "held", "deleted", "discarded"),
    *("in-progress", "handed-over", "delivered"),
)

# Nothing more happens in these states without intervention.
FINAL = frozenset({"rejected", "bounced", "aborted", "deleted", "discarded", "handed-over", "delivered"})
ARRIVED = frozenset({"handed-over", "delivered"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a message for one recipient."""

    recipient: str  # "" if no line names one
    original: str  # address before alias expansion, or the same
    status: str  # one of STATUSES
    service: str  # the hop where it ended, or is
    queue_id: str
    reply: str = ""  # a server's reply, or Postfix's reason
    at: float | None = None
    hops: int = 0  # number of hops, the mailbox included
    relay: str = ""
    next_try: float | None = None  # seconds of the epoch; known only from the queue


@dataclass(frozen=True, slots=True)
class Hop:
    """An MTA's handling of the message, with the relays that it delivered to."""

    service: str
    queue_id: str
    arrived: float | None
    left: float | None
    relays: tuple[str, ...]
    notice: bool = False  # the hop carried a notice to the sender, not the message


@dataclass(frozen=True, slots=True)
class Journey:
    """The journey of one message, according to the logs (and the queues)."""

    message_id: str
    sender: str | None
    outcomes: tuple[Outcome, ...]
    notices: tuple[Outcome, ...]
    events: tuple[Event, ...]
    hops: tuple[Hop, ...]
    missing: tuple[str, ...]
    unseen: tuple[str, ...]  # queue ids at the next hop about which there is no line
    started: float | None

    @property
    def status(self) -> str:
        """One of STATUSES, or `partly` if recipients differ."""
        found = {outcome.status for outcome in self.outcomes}
        return found.pop() if len(found) == 1 else "partly" if found else "in-progress"

    @property
    def arrived(self) -> bool:
        """Whether it reached every recipient, according to these logs."""
        return bool(self.outcomes) and all(outcome.status in ARRIVED for outcome in self.outcomes)

    @property
    def incomplete(self) -> bool:
        """Whether other logs may tell more about it."""
        open_ends = {"handed-over", "in-progress"}
        return bool(self.missing or self.unseen) or any(outcome.status in open_ends for outcome in self.outcomes)

    @property
    def settled(self) -> bool:
        """Whether no more events will follow without intervention, for it or its notices, and all of them are here.

        Earlier lines may be missing: a process that follows a message may have started after its first ones.
        """
        every = (*self.outcomes, *self.notices)
        if not self.hops and self.message_id:  # only the mailbox's line has been read so far
            return False
        left = all(hop.left is not None for hop in self.hops) and not self.unseen
        return left and bool(self.outcomes) and all(outcome.status in FINAL for outcome in every)

    @property
    def failure(self) -> KnownFailure | None:
        """The known failure that prevents, or prevented, its arrival: the most precise one in its log lines."""
        found = []
        for outcome in self.outcomes:
            if outcome.status not in ARRIVED:
                found += [failure for text in self._reasons(outcome) if (failure := recognise(text))]
        return min(found, key=failures.ALL.index, default=None)

    def _reasons(self, outcome: Outcome) -> list[str]:
        """Return what the logs say about the last delivery attempt for a recipient, and no earlier one."""
        texts: list[str] = []
        for event in self.events:
            if event.kind == "refused" and not event.what.startswith("refused at "):
                texts.append(event.line.text)
            elif outcome.queue_id == {"note": event.queue_id, "crashed": event.next_id}.get(event.kind):
                texts.append(event.what)
            elif event.kind == "attempt" and event.recipient == outcome.recipient and event.at != outcome.at:
                texts.clear()
        return [*texts, outcome.reply]

    def is_named(self, name: str) -> bool:
        """Whether `name` is its Message-ID or one of its queue ids."""
        return any(name in (event.queue_id, event.message_id, event.next_id) for event in self.events)

    def since(self, at: float | None) -> float | None:
        """Return the milliseconds from submission to a time."""
        return None if at is None or self.started is None else (at - self.started) * 1000

    def sentence(self, now: float | None = None) -> str:
        """Return the verdict in one line; `now` (seconds of the epoch) is needed for “next try in …”."""
        parts = []
        for status in STATUSES:
            same = [outcome for outcome in self.outcomes if outcome.status == status]
            reasons: dict[tuple[str, str], list[Outcome]] = {}
            for outcome in same:
                reasons.setdefault((outcome.service, _reason(outcome)), []).append(outcome)
            parts += [self._clause(status, service, reason, each, now) for (service, reason), each in reasons.items()]
        if status := self._notice_clause():
            parts.append(status)
        return "; ".join(parts) or "its outcome is unknown"

    def _clause(self, status: str, service: str, reason: str, same: Sequence[Outcome], now: float | None) -> str:
        recipients = _names([outcome.recipient for outcome in same if outcome.recipient])
        for_recipients = f" for {recipients}" if recipients else ""
        because = f": {reason}" if reason else ""
        if status == "delivered":
            times = [outcome.at for outcome in same if outcome.at is not None]
            took = self.since(max(times)) if times else None
            hops = max(outcome.hops for outcome in same)
            over = f" over {hops} hop{'s' if hops > 1 else ''}" if hops else ""
            time_taken = f" in {spoken(took / 1000)}" if took is not None else ""
            return f"delivered{f' to {recipients}' if recipients else ''}{time_taken}{over}"
        if status == "handed-over":
            return f"handed over to {_names(sorted({outcome.relay for outcome in same}))}{for_recipients}"
        if status == "waiting":
            tries = [outcome.next_try for outcome in same if outcome.next_try is not None]
            when = ""
            if tries and now is not None:
                left = min(tries) - now
                when = f", next try in {spoken(left)}" if left > 0 else ", next try at the next queue run"
            return f"waiting in {service}{for_recipients}{because}{when}"
        words = {
            "rejected": f"refused by {service}",
            "bounced": f"bounced in {service}",
            "aborted": f"aborted in {service}",
            "held": f"on hold in {service}",
            "deleted": f"deleted from the queue of {service}",
            "discarded": f"discarded by {service}",
            "in-progress": f"on its way in {service}",
        }[status]
        return f"{words}{for_recipients}{because}"

    def _notice_clause(self) -> str:
        delivered = [notice for notice in self.notices if notice.status in ARRIVED and notice.recipient]
        return f"{_names(sorted({n.recipient for n in delivered}))} was notified" if delivered else ""

    def json(self, now: float | None = None) -> Json:
        """Return one of the documents of `mailstack trace --json`; docs/json.md describes it."""
        return {
            "message_id": self.message_id,
            "from": self.sender,
            "status": self.status,
            "sentence": self.sentence(now),
            "fault": self.failure.id if self.failure else None,
            "remedy": self.failure.remedy if self.failure else "",
            "submitted": _iso(self.started),
            "milliseconds": _rounded(self.since(self.ended)),
            "hops": [
                {
                    "service": hop.service,
                    "queue_id": hop.queue_id,
                    "arrived_milliseconds": _rounded(self.since(hop.arrived)),
                    "left_milliseconds": _rounded(self.since(hop.left)),
                    "relays": list(hop.relays),
                    "notice": hop.notice,
                }
                for hop in self.hops
            ],
            "recipients": [_outcome_json(self, outcome) for outcome in self.outcomes],
            "notices": [_outcome_json(self, outcome) for outcome in self.notices],
            "events": [_event_json(self, event) for event in self.events],
            "missing": list(self.missing),
        }

    @property
    def ended(self) -> float | None:
        """When it reached the last recipient, or else the time of the last event; in seconds of the epoch."""
        times = [outcome.at for outcome in self.outcomes if outcome.status in ARRIVED and outcome.at is not None]
        times = times or [event.at for event in self.events if event.at is not None]
        return max(times) if times else None


def _outcome_json(journey: Journey, outcome: Outcome) -> Json:
    return {
        "address": outcome.recipient,
        "original": outcome.original,
        "status": outcome.status,
        "service": outcome.service,
        "queue_id": outcome.queue_id,
        "relay": outcome.relay,
        "reply": outcome.reply,
        "milliseconds": _rounded(journey.since(outcome.at)),
        "next_try": _iso(outcome.next_try),
    }


def _event_json(journey: Journey, event: Event) -> Json:
    return {
        "milliseconds": _rounded(journey.since(event.at)),
        "at": _iso(event.at),
        "service": event.service,
        "kind": event.kind,
        "what": event.what,
        "queue_id": event.queue_id,
        "recipient": event.recipient,
        "original": event.original,
        "peer": event.peer,
        "tls": event.tls,
        "sasl_user": event.sasl_user,
        "status": event.status,
        "code": event.code,
        "enhanced": event.enhanced,
        "reply": event.reply,
        "meaning": meaning(event),
        "delays": list(event.delays) or None,
    }


# Where Postfix's own enhanced status code means less than its reason: 4.4.1 is “no answer”, also for a refusal.
_PLAIN = (
    ("Connection refused", "transient failure: the host refused the connection"),
    ("unable to look up host", "transient failure: the name of the next hop was not found"),
    ("Host or domain name not found", "the name of the next hop was not found"),
)


def meaning(event: Event) -> str:
    """Return the meaning of the event's enhanced status code (RFC 3463) or its reply code (RFC 5321)."""
    if event.kind == "attempt" and (told := next((words for part, words in _PLAIN if part in event.reply), "")):
        return told
    found = status_codes.enhanced(event.enhanced) if event.enhanced else None
    if found is None and event.code is not None:
        found = status_codes.reply(event.code)
    return found.text if found else ""


def _reason(outcome: Outcome) -> str:
    """Return a reply in short: the server's words, without the address and Postfix's explanation."""
    if outcome.status in ("delivered", "handed-over", "in-progress"):
        return ""
    return quoted(outcome.reply).removesuffix(":").strip()


def _names(addresses: Sequence[str]) -> str:
    few = list(dict.fromkeys(addresses))
    if len(few) > 4:
        return f"{', '.join(few[:3])} and {len(few) - 3} more"
    return " and ".join([", ".join(few[:-1]), few[-1]] if len(few) > 1 else few)


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 1)


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
