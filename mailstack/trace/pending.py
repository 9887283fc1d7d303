"""What a mail that has not arrived waits for: pure functions of its journey."""

from __future__ import annotations

from mailstack.text.durations import spoken
from mailstack.trace.journey import Journey, Outcome

_OPEN = ("waiting", "in-progress", "held")


def open_outcome(journey: Journey) -> Outcome | None:
    """Return the first result that is not final yet."""
    return next((each for each in journey.outcomes if each.status in _OPEN), None)


def waits_for(journey: Journey, now: float) -> str:
    """Return what a mail waits for, and how many delivery attempts have failed; "" if its result is final."""
    outcome = open_outcome(journey)
    if outcome is None:
        return ""
    if outcome.status == "held":
        return "somebody to release it from hold"
    failed = _failed(journey, outcome)
    tried = f"{failed} attempt{'s' if failed > 1 else ''} failed" if failed else ""
    if outcome.status == "in-progress":
        waiting = "the next hop: Postfix looks it up, connects, or waits for its reply"
    elif outcome.next_try is not None and outcome.next_try > now:
        waiting = f"the next attempt, in {spoken(round(outcome.next_try - now))}"
    else:
        waiting = "the next attempt, at the next queue run"
    return f"{waiting}; {tried}" if tried else waiting


def _failed(journey: Journey, outcome: Outcome) -> int:
    return sum(
        event.status == "deferred" and (event.queue_id, event.recipient) == (outcome.queue_id, outcome.recipient)
        for event in journey.events
    )
