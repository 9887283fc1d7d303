"""The account of a load: the fate of each mail, by its Message-ID, and how long it took. Pure functions of data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mailstack.load.plan import Plan
from mailstack.model import Json

# The most mails to name, of those that are not in their mailboxes.
MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class SentMail:
    """A mail that was sent, and its reply; times in seconds of the epoch."""

    message_id: str
    recipient: str
    started: float  # time of the MAIL command
    answered: float
    code: int  # of the decisive reply; 0 if the connection ended without one
    reply: str  # its text, or the reason why there is none

    @property
    def accepted(self) -> bool:
        """Whether the server has accepted it: from then on it must not be lost (RFC 5321, section 4.2.5)."""
        return 200 <= self.code < 300

    @property
    def full_reply(self) -> str:
        """The whole reply, or the reason why there is none."""
        return f"{self.code} {self.reply}" if self.code else self.reply


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of durations, in milliseconds."""

    p50: float
    p95: float
    p99: float
    maximum: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Percentiles | None:
        """Return the percentiles of durations in seconds; None where there are none."""
        ordered = sorted(seconds)
        if not ordered:
            return None
        return cls(*(1000 * nearest_rank(ordered, each) for each in (50, 95, 99, 100)))

    def json(self) -> Json:
        """Return the percentiles as in the document."""
        return {
            "p50": round(self.p50, 1),
            "p95": round(self.p95, 1),
            "p99": round(self.p99, 1),
            "max": round(self.maximum, 1),
        }


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of all do not exceed; it is always a measured value."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Observations:
    """Observations of the mails after they had been accepted."""

    saved: Mapping[str, float]  # Message-ID → when Dovecot saved it, in seconds of the epoch
    copies: Mapping[str, Mapping[str, int]]  # mailbox → Message-ID → copies; without mailboxes that could not be read
    # (queue id, recipient) → reason; None if the queue could not be read
    waiting: Mapping[tuple[str, str], str] | None = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a load."""

    lab: str
    plan: Plan
    connected: int
    accepted: tuple[SentMail, ...]
    refused: Mapping[str, int]  # the reply, or the reason why there is none → count
    delivered: int
    lost: tuple[str, ...]  # Message-IDs of accepted mails that were not found anywhere
    doubled: Mapping[str, int]  # Message-ID → copies
    waiting: Mapping[str, int]  # reason → count
    unseen: int  # accepted mails that may be in a queue or a mailbox that could not be read
    seconds: float  # from the first command to the last arrival, or to the end if a mail has not arrived
    sent_per_second: float
    delivered_per_second: float
    submission: Percentiles | None
    delivery: Percentiles | None
    processor_seconds: float  # of this process during sending
    interrupted: bool = False
    journeys: Mapping[str, str] = field(default_factory=dict)  # Message-ID of a lost mail → sentence of its trace
    trouble: tuple[str, ...] = ()  # errors during the load

    def json(self) -> Json:
        """Return the document of `mailstack load --json`."""
        plan = self.plan
        return {
            "lab": self.lab,
            "connections": self.connected,
            "mailboxes": plan.mailboxes,
            "bytes": plan.size,
            "rate": plan.rate,
            "seconds": round(self.seconds, 3),
            "messages": len(self.accepted),
            "delivered": self.delivered,
            "refused": sum(self.refused.values()),
            "lost": len(self.lost),
            "doubled": len(self.doubled),
            "waiting": sum(self.waiting.values()),
            "unseen": self.unseen,
            "messages_per_second": {
                "sent": round(self.sent_per_second, 1),
                "delivered": round(self.delivered_per_second, 1),
            },
            "submission_milliseconds": self.submission.json() if self.submission else None,
            "delivery_milliseconds": self.delivery.json() if self.delivery else None,
            "refusals": [{"reply": reply, "count": count} for reply, count in self.refused.items()],
            "waits": [{"reason": reason, "count": count} for reason, count in self.waiting.items()],
            "lost_mails": [
                {"message_id": each, "journey": self.journeys.get(each, "")} for each in self.lost[:MAX_NAMED]
            ],
            "doubled_mails": [
                {"message_id": each, "copies": copies} for each, copies in list(self.doubled.items())[:MAX_NAMED]
            ],
            "processor_seconds": round(self.processor_seconds, 3),
            "interrupted": self.interrupted,
            "trouble": list(self.trouble),
        }


def settle(
    lab: str,
    plan: Plan,
    mails: Iterable[SentMail],
    observed: Observations,
    *,
    connected: int,
    ended: float,
    processor_seconds: float = 0.0,
    interrupted: bool = False,
    trouble: Sequence[str] = (),
) -> Outcome:
    """Account for every mail that was sent; `ended` is the moment of the observations, in seconds of the epoch."""
    every = sorted(mails, key=lambda each: each.started)
    accepted = tuple(each for each in every if each.accepted)
    fates = [_fate(each, observed) for each in accepted]
    waiting = Counter(reason for fate, reason in fates if fate == "waiting")
    delivered = sum(fate == "delivered" for fate, _ in fates)
    started = every[0].started if every else ended
    saved = [(each, observed.saved[each.message_id]) for each in accepted if each.message_id in observed.saved]
    last_sent = max((each.answered for each in accepted), default=started)
    last_saved = max((moment for _, moment in saved), default=started)
    last = last_saved if saved and len(saved) == len(accepted) else ended
    return Outcome(
        lab=lab,
        plan=plan,
        connected=connected,
        accepted=accepted,
        refused=dict(Counter(each.full_reply for each in every if not each.accepted).most_common()),
        delivered=delivered,
        lost=tuple(each.message_id for each, (fate, _) in zip(accepted, fates, strict=True) if fate == "lost"),
        doubled=_doubled(every, observed),
        waiting=dict(waiting.most_common()),
        unseen=sum(fate == "unseen" for fate, _ in fates),
        seconds=max(last, last_sent) - started,
        sent_per_second=_rate(len(accepted), last_sent - started),
        delivered_per_second=_rate(delivered, last_saved - started),
        submission=Percentiles.of(each.answered - each.started for each in accepted),
        delivery=Percentiles.of(max(0.0, moment - each.started) for each, moment in saved),
        processor_seconds=processor_seconds,
        interrupted=interrupted,
        trouble=tuple(trouble),
    )


# The fate of an accepted mail.
Fate = Literal["delivered", "waiting", "unseen", "lost"]


def _fate(mail: SentMail, observed: Observations) -> tuple[Fate, str]:
    """Return the fate of an accepted mail, and the reason if it waits."""
    box = observed.copies.get(mail.recipient)
    place = queue_id(mail.reply), mail.recipient
    if box is not None and box.get(mail.message_id):
        return "delivered", ""
    if observed.waiting and place in observed.waiting:
        return "waiting", observed.waiting[place] or "it has not been tried yet"
    return ("unseen" if box is None or observed.waiting is None else "lost"), ""


def _doubled(mails: Iterable[SentMail], observed: Observations) -> dict[str, int]:
    """Return the Message-IDs of mails that are in the mailboxes several times, with the number of copies."""
    copies = {each.message_id: sum(box.get(each.message_id, 0) for box in observed.copies.values()) for each in mails}
    return {message_id: count for message_id, count in copies.items() if count > 1}


def queue_id(reply: str) -> str:
    """Return the queue id in the reply to a message: `2.0.0 Ok: queued as 23F3116C30F` (smtpd(8))."""
    return next(iter(reply.partition("queued as ")[2].split()), "")


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
