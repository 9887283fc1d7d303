"""The user's own mails, told from those that mailstack sends for a check, a proof or a load, and from notices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mailstack.trace.journey import Journey

# The marks in the Message-IDs of mails that mailstack sends to itself: a check's, an experiment's on a running lab, a
# proof's, a load's.
_MARK = re.compile(r"\.(?P<mark>check-[0-9a-f]{12}|experiment-[0-9a-f]{12}|proof-of-lab|load-[0-9a-f]{8})@")
# The name that a check's client gives in EHLO; a refused client is known by that alone.
_CHECK_HELO = "client.test"
# Seconds before the first and after the last line that names a mail of a check, in which it may have been at work.
_MARGIN = 3.0


def mark_of(message_id: str) -> str:
    """Return the mark of a mail that mailstack sent to itself; "" for any other Message-ID."""
    found = _MARK.search(message_id)
    return found["mark"] if found else ""


def is_refused_check(text: str) -> bool:
    """Whether a log line reports that a check's client was refused."""
    return text.endswith(f" helo=<{_CHECK_HELO}>") or f" helo=<{_CHECK_HELO}> sasl_method=" in text


def is_provoked(text: str) -> bool:
    """Whether a log line names a mail that mailstack sent to itself, or reports that a check's client was refused."""
    return is_marked(text) or is_refused_check(text)


def is_marked(text: str) -> bool:
    """Whether a log line names a mail that mailstack sent to itself."""
    return bool(_MARK.search(text))


def is_own(journey: Journey) -> bool:
    """Whether it is a mail of the user, and neither one of mailstack's nor a notice."""
    checked = any(event.helo == _CHECK_HELO for event in journey.events if event.kind == "refused")
    return journey.sender != "" and not mark_of(journey.message_id) and not checked


def spans(marks: Iterable[tuple[str, float | None]]) -> list[tuple[float, float]]:
    """Return when each check or experiment ran: from the first to the last of the times that go with its mark."""
    times: dict[str, list[float]] = {}
    for mark, at in marks:
        if mark.startswith(("check-", "experiment-")) and at is not None:
            times.setdefault(mark, []).append(at)
    return [(min(each) - _MARGIN, max(each) + _MARGIN) for each in times.values()]


def latest(journeys: Sequence[Journey]) -> Journey | None:
    """Return the user's last mail; where there is none, the last of all that is no notice, or the last of all.

    A mail without a Message-ID that was refused or given up while a check ran is the check's.
    """
    runs = spans((mark_of(each.message_id), at) for each in journeys for at in (each.started, each.ended))
    own = [each for each in journeys if is_own(each) and (each.message_id or not is_within(each.started, runs))]
    others = [each for each in journeys if each.sender != ""]
    return next(iter((own or others or journeys)[-1:]), None)


def is_within(at: float | None, runs: Iterable[tuple[float, float]]) -> bool:
    """Whether a check ran at a time."""
    return at is not None and any(first <= at <= last for first, last in runs)
