"""Server processes that ended during a delivery attempt: the client logs a lost connection, the server the reason."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from mailstack.trace.events import Event
from mailstack.trace.journey import Journey
from mailstack.trace.lines import parse

# msg(3) of Postfix: the process logs this, and exits.
_FATAL = re.compile(r"/smtpd\[\d+\]: fatal: ")
_LOST = "lost connection with "
# The most crashes to remember: the newest.
_MOST = 1000
# Seconds by which the lines of two machines may be apart.
_MARGIN = 1.0


def is_concerned(journey: Journey) -> bool:
    """Whether a server hung up during a delivery attempt, so that its log may have the reason."""
    return any(_is_lost(event) for event in journey.events)


def find(lines: Iterable[tuple[str, str]], now: float) -> list[Event]:
    """Return the last crashes of SMTP server processes in some logs (source, line)."""
    found = []
    for position, (source, text) in enumerate(lines):
        if "]: fatal: " in text and _FATAL.search(text):
            line = parse(text, source, position, now)
            what = f"its process for this connection ended: {line.text}"
            found.append(Event("crashed", line.at, line.host, "smtpd", "", what, line))
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
    return dataclasses.replace(journey, events=tuple(events))


def _is_lost(event: Event) -> bool:
    return event.kind == "attempt" and event.status == "deferred" and event.reply.startswith(_LOST)


def _fits(crash: Event, attempt: Event) -> bool:
    """Whether a crash can have ended an attempt: by its host, and by the time that the attempt took."""
    if crash.at is None or attempt.at is None:
        return False
    if attempt.peer.partition("[")[0].partition(".")[0] != crash.service.partition(".")[0]:
        return False
    took = attempt.delays[2] + attempt.delays[3] if attempt.delays else 0.0
    return -_MARGIN <= attempt.at - crash.at <= took + _MARGIN
