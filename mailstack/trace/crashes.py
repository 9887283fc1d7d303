"""Processes that ended during a delivery attempt, a server's or the client's own: their logs tell why.

Of a server's end, the client logs a lost connection; of its own, no line names the mail.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from mailstack.trace.events import Event
from mailstack.trace.journey import Journey, Outcome
from mailstack.trace.lines import parse

# msg(3) of Postfix: the process logs this, and exits.
_FATAL = re.compile(r"/(smtpd|smtp|lmtp)\[\d+\]: fatal: ")
_LOST = "lost connection with "
# The most crashes to remember: the newest.
_MOST = 1000
# Seconds by which the lines of two machines may be apart.
_MARGIN = 1.0


def is_concerned(journey: Journey) -> bool:
    """Whether a server hung up during a delivery attempt, or no attempt has ended yet: a crash may be the reason."""
    return bool(_on_their_way(journey)) or any(_is_lost(event) for event in journey.events)


def find(lines: Iterable[tuple[str, str]], now: float) -> list[Event]:
    """Return the last crashes of SMTP servers and clients in some logs (source, line)."""
    found = []
    for position, (source, text) in enumerate(lines):
        if "]: fatal: " in text and (program := _FATAL.search(text)):
            line = parse(text, source, position, now)
            what = f"its process for this connection ended: {line.text}"
            found.append(Event("crashed", line.at, line.host, program[1], "", what, line))
            del found[:-_MOST]
    return found


def assigned(journey: Journey, crashes: Sequence[Event]) -> Journey:
    """Return a journey with the crashes that ended its delivery attempts, each before its attempt."""
    events: list[Event] = []
    for event in journey.events:
        if _is_lost(event):
            fitting = [crash for crash in crashes if _fits(crash, event)]
            events += [dataclasses.replace(crash, next_id=event.queue_id) for crash in fitting[-1:]]
        events.append(event)
    for outcome in _on_their_way(journey):
        fitting = [crash for crash in crashes if _stops(crash, outcome, journey)]
        events += [dataclasses.replace(crash, next_id=outcome.queue_id) for crash in fitting[-1:]]
    return dataclasses.replace(journey, events=tuple(events))


def _on_their_way(journey: Journey) -> list[Outcome]:
    """Return one result that is not final for each hop whose delivery agent has the mail."""
    return list({each.queue_id: each for each in journey.outcomes if each.status == "in-progress"}.values())


def _stops(crash: Event, outcome: Outcome, journey: Journey) -> bool:
    """Whether a crash of a client can be that of the client which had the mail, the last of its events."""
    if crash.program == "smtpd" or crash.at is None or journey.started is None:
        return False
    last = max((event.at for event in journey.events if event.at is not None), default=journey.started)
    return crash.service == outcome.service and crash.at >= last - _MARGIN


def _is_lost(event: Event) -> bool:
    return event.kind == "attempt" and event.status == "deferred" and event.reply.startswith(_LOST)


def _fits(crash: Event, attempt: Event) -> bool:
    """Whether a crash can have ended an attempt: by its host, and by the time that the attempt took."""
    if crash.at is None or attempt.at is None or crash.program != "smtpd":
        return False
    if attempt.peer.partition("[")[0].partition(".")[0] != crash.service.partition(".")[0]:
        return False
    took = attempt.delays[2] + attempt.delays[3] if attempt.delays else 0.0
    return -_MARGIN <= attempt.at - crash.at <= took + _MARGIN
