"""Criteria of the mail that a test waits for, and how close other mails come to them. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailstack.errors import InputError
from mailstack.text.durations import spoken

if TYPE_CHECKING:
    from mailstack.testing.received import Message

# How many messages a failure lists.
_MOST = 10

Text = str | re.Pattern[str]
Predicate = Callable[["Message"], object]


@dataclass(frozen=True, slots=True)
class Judged:
    """One criterion, and the value that a mail has instead."""

    name: str
    met: bool
    found: str


@dataclass(frozen=True, slots=True)
class Criteria:
    """The properties that a mail must have; None accepts anything.

    A string for the subject must occur in it, case-insensitively. A string for an address must be equal. Patterns
    are searched for. `to` matches any address of To and Cc. `matching` is called with the message.
    """

    subject: Text | None = None
    sender: Text | None = None
    to: Text | None = None
    matching: Predicate | None = None

    def __post_init__(self) -> None:
        for name in ("subject", "sender", "to"):
            value = getattr(self, name)
            if not isinstance(value, str | re.Pattern | None):
                raise InputError(f"{name} should be a text or a compiled pattern, not {value!r}")
        if self.matching is not None and not callable(self.matching):
            raise InputError(f"matching should be a function of a message, not {self.matching!r}")

    def judge(self, message: Message) -> list[Judged]:
        """Return each criterion, and whether the message meets it."""
        judged = []
        if self.subject is not None:
            found = message.subject
            met = _searched(self.subject, found) or (
                isinstance(self.subject, str) and self.subject.casefold() in found.casefold()
            )
            judged.append(Judged("subject", met, found))
        if self.sender is not None:
            judged.append(Judged("sender", _is(self.sender, [message.sender]), message.sender))
        if self.to is not None:
            judged.append(Judged("to", _is(self.to, message.recipients), ", ".join(message.recipients)))
        if self.matching is not None:
            judged.append(Judged("matching", bool(self.matching(message)), "does not match"))
        return judged

    def fits(self, message: Message) -> bool:
        """Return whether the message meets all criteria."""
        return all(each.met for each in self.judge(message))

    def __str__(self) -> str:
        """Return the criteria as words after “mail”: “with the subject “Welcome” from shop@example.com”."""
        said = []
        if self.subject is not None:
            said.append(f"with the subject {shown(self.subject)}")
        if self.sender is not None:
            said.append(f"from {plain(self.sender)}")
        if self.to is not None:
            said.append(f"to {plain(self.to)}")
        if self.matching is not None:
            said.append(f"matching {getattr(self.matching, '__name__', repr(self.matching))}")
        return " ".join(said)

    def called(self) -> str:
        """Return the criteria as words, with “mail” before them."""
        return f"mail {self}".rstrip()


def nearest(criteria: Criteria, messages: Iterable[Message]) -> list[tuple[Message, list[Judged]]]:
    """Return the messages that do not match, with their properties: the closest first, and of these the newest."""
    judged = [(message, criteria.judge(message)) for message in messages]
    missed = [(message, each) for message, each in judged if not all(one.met for one in each)]
    return sorted(missed, key=lambda pair: (-sum(one.met for one in pair[1]), -pair[0].uid))


def missed(
    criteria: Criteria, n: int, came: Sequence[Message], address: str, seconds: float, after: Message | None
) -> str:
    """Describe the criteria and the mails that arrived instead, the closest first. `came` has the oldest first."""
    fitting = [message for message in came if criteria.fits(message)]
    later = f" after {after!r}" if after else ""
    what = f"no {criteria.called()}" if n == 1 else f"{len(fitting)} of {n} × {criteria.called()}"
    lines = [f"{what} came to {address} within {spoken(seconds)}{later}"]
    lines += [f"  came: {message!r}" for message in fitting]
    near = nearest(criteria, came)
    if not near:
        return "\n".join([*lines, *([] if fitting else ["the mailbox is empty"])])
    lines.append(f"{len(near)} came instead" + (", the nearest first:" if len(near) > 1 else ":"))
    for message, judged in near[:_MOST]:
        lines.append(f"  {message!r}")
        for each in judged:
            wanted = getattr(criteria, each.name)
            if each.met:
                lines.append(f"      {each.name}: as wanted")
            elif each.name == "matching":
                lines.append(f"      matching: {getattr(wanted, '__name__', repr(wanted))} says no")
            elif each.name == "subject":
                lines.append(f"      subject: “{each.found}”, not {shown(wanted)}")
            else:
                lines.append(f"      {each.name}: {each.found or 'nobody'}, not {plain(wanted)}")
    lines += [f"  … and {len(near) - _MOST} more"] if len(near) > _MOST else []
    return "\n".join(lines)


def shown(wanted: Text) -> str:
    """Quote a text or a pattern for a sentence."""
    return f"“{wanted}”" if isinstance(wanted, str) else f"/{wanted.pattern}/"


def plain(wanted: Text) -> str:
    """Format an address, or quote a pattern, for a sentence."""
    return wanted if isinstance(wanted, str) else shown(wanted)


def _searched(wanted: Text, found: str) -> bool:
    return isinstance(wanted, re.Pattern) and wanted.search(found) is not None


def _is(wanted: Text, found: Iterable[str]) -> bool:
    if isinstance(wanted, str):
        return wanted.lower() in [each.lower() for each in found]
    return any(_searched(wanted, each) for each in found)
