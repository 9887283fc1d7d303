"""Known failures in a lab's logs: of the user's last mail, or of all mails but those that mailstack sent to itself."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from mailstack import failures
from mailstack.actions import tracing
from mailstack.actions.tracing import Read
from mailstack.failures import Occurrence
from mailstack.trace import collect, own
from mailstack.trace.journey import Journey
from mailstack.trace.lines import parse
from mailstack.trace.outcomes import QueuedMail


@dataclass(frozen=True, slots=True)
class Explanation:
    """The known failures in some logs; with `mail`, those of the user's last mail, and `older` other ones."""

    failures: tuple[Occurrence, ...]
    lines: int  # of all logs
    mail: Journey | None = None
    older: int = 0


def of_last_mail(read: Read, waiting: Sequence[QueuedMail] | None = None) -> Explanation:
    """Explain the failure of the user's last mail: the one that its verdict names."""
    found = next(iter(tracing.last_mail(read, waiting).journeys), None)
    mail = found if found and own.is_own(found) else None
    positions = {event.line.position for event in mail.events} if mail else set()
    others, count = _occurrences(read, leave_out=positions)
    named = mail.failure if mail else None
    own_lines = [text for position, text in enumerate(_labelled(read)) if position in positions]
    seen = [each for each in failures.find_failures(own_lines) if named and each.failure.id == named.id]
    if named and not seen:  # its line says it in other words than the verdict
        seen = [Occurrence(named, 1, "", "", mail.sentence() if mail else "")]
    return Explanation(tuple(seen), count, mail, len(others))


def of_everything(read: Read) -> Explanation:
    """Explain all known failures in the logs, without those that checks, proofs and loads provoked."""
    found, count = _occurrences(read)
    return Explanation(tuple(found), count)


def _labelled(read: Read) -> Iterator[str]:
    """Yield each line after the name of its service."""
    return (f"{source} | {text}" if source else text for source, text in read())


def _occurrences(read: Read, leave_out: Container[int] = ()) -> tuple[list[Occurrence], int]:
    """Return the known failures at other positions than `leave_out`, in order of time, and the number of lines."""
    provoked, runs = _provoked(read)
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for position, (source, text) in enumerate(read()):
            count += 1
            if position in leave_out or failures.recognise(text) is None:
                continue
            named = collect.names(text)
            if not provoked.isdisjoint(named) or own.is_refused_check(text):
                continue
            if not named and own.is_within(parse(text, source).at, runs):
                continue
            yield f"{source} | {text}" if source else text

    found = failures.find_failures(lines())
    return sorted(found, key=lambda each: each.first), count


def _provoked(read: Read) -> tuple[set[str], list[tuple[float, float]]]:
    """Return all names of the mails that mailstack sent to itself, and of their notices; and when checks ran."""
    known: set[str] = set()
    marks: list[tuple[str, float | None]] = []
    for source, text in read():
        if own.is_marked(text):
            found = collect.names(text)
            known.update(found)
            marks += [(own.mark_of(name), parse(text, source).at) for name in found]
    for _ in range(collect.PASSES if known else 0):
        before = len(known)
        for _, text in read():
            found = collect.names(text)
            if not known.isdisjoint(found):
                known.update(found)
        if len(known) == before:
            break
    return known, own.spans(marks)
