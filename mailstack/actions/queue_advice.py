"""Why mails wait in the queues of a lab: their next hops, and the failures that keep them, with their repairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailstack import failures
from mailstack.actions import next_hops, repairs, tracing
from mailstack.actions.queues import Entry
from mailstack.actions.repairs import Advice
from mailstack.failures import KnownFailure
from mailstack.lab.running import RunningLab
from mailstack.model import Json
from mailstack.text.durations import spoken
from mailstack.trace.journey import Journey

# The most reasons to explain, and pairs of machine and domain to look up: the first ones in the listing.
_MOST = 20


@dataclass(frozen=True, slots=True)
class Reason:
    """A known failure that keeps mails in a queue."""

    failure: KnownFailure
    advice: Advice
    queue_ids: tuple[str, ...]

    def json(self) -> Json:
        return {
            "fault": self.failure.id,
            "cause": self.failure.cause,
            "remedy": self.failure.remedy,
            "queue_ids": list(self.queue_ids),
            "repair": self.advice.json()["repair"],
        }


def hops(lab: RunningLab, entries: Sequence[Entry]) -> dict[str, str]:
    """Return the next hop of each mail, by its queue id, with the setting that names it."""
    known: dict[tuple[str, str], str] = {}
    found = {}
    for entry in entries:
        recipient = entry.recipients[0].address if entry.recipients else ""
        key = entry.service, recipient.rpartition("@")[2]
        if key not in known and len(known) < _MOST:
            known[key] = next_hops.of(lab, entry.service, recipient)
        found[entry.queue_id] = known.get(key, "")
    return found


def waits_for(entry: Entry, now: float, release: str) -> str:
    """Return what a mail waits for; `release` is the command line that takes it off hold."""
    if entry.name == "hold":
        return f"its release from hold: `{release}`"
    if entry.name == "active":
        return "the next hop: Postfix looks it up, connects, or waits for its reply"
    if entry.name != "deferred":
        return "Postfix to pick it up"
    if entry.next_try is not None and entry.next_try > now:
        return f"the next attempt, in {spoken(round(entry.next_try - now))}"
    return "the next attempt, at the next queue run"


def reasons(lab: RunningLab, entries: Sequence[Entry], now: float) -> list[Reason]:
    """Return the known failures that keep mails in the queues, each with the mails that it keeps."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        text = next((each.reason for each in entry.recipients if each.reason), "")
        if text or entry.name == "active":
            groups.setdefault((entry.service, text), []).append(entry)
    shown = dict(list(groups.items())[:_MOST])
    journeys = _journeys(lab, [group[-1] for group in shown.values()])
    found: dict[tuple[str, str], Reason] = {}
    for (service, text), group in shown.items():
        journey = journeys.get(group[-1].queue_id)
        failure = (journey.failure if journey else None) or failures.recognise(text)
        if failure is None:
            continue
        ids = tuple(entry.queue_id for entry in group)
        before = found.get((service, failure.id))
        if before is None:
            advice = repairs.advice(lab, journey, now) if journey else Advice()
            found[service, failure.id] = Reason(failure, advice, ids)
        else:
            found[service, failure.id] = Reason(failure, before.advice, (*before.queue_ids, *ids))
    return list(found.values())


def _journeys(lab: RunningLab, entries: Sequence[Entry]) -> dict[str, Journey]:
    """Return the journeys of mails by their queue ids; a notice has none of its own."""
    wanted = {entry.queue_id for entry in entries if entry.sender}
    if not wanted:
        return {}
    waiting = tracing.as_queued(entries, lab.blotter().clean)
    with tracing.lab_lines(lab) as read:
        journeys = tracing.of_ids(read, wanted, waiting)
    return {hop.queue_id: each for each in journeys for hop in each.hops if hop.queue_id in wanted and not hop.notice}
