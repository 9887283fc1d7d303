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
_MAX_LISTED = 10

Text = str | re.Pattern[str]
Predicate = Callable[["Message"], object]


@dataclass(frozen=True, slots=True)
class CriterionResult:
    """One criterion, and what a mail has instead if it does not meet it."""

    name: str
    met: bool
    mismatch: str


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

    def judge(self, message: Message) -> list[CriterionResult]:
        """Return each criterion, and whether the message meets it."""
        results = []
        if self.subject is not None:
            met = _text_matches(self.subject, message.subject)
            results.append(CriterionResult("subject", met, f"“{message.subject}”, not {quoted(self.subject)}"))
        for name, wanted, addresses in (("sender", self.sender, [message.sender]), ("to", self.to, message.recipients)):
            if wanted is not None:
                mismatch = f"{', '.join(addresses) or 'none'}, not {quoted_address(wanted)}"
                results.append(CriterionResult(name, _address_matches(wanted, addresses), mismatch))
        if self.matching is not None:
            mismatch = f"{_function_name(self.matching)} returned a false value"
            results.append(CriterionResult("matching", bool(self.matching(message)), mismatch))
        return results

    def fits(self, message: Message) -> bool:
        """Return whether the message meets all criteria."""
        return all(each.met for each in self.judge(message))

    def __str__(self) -> str:
        """Return the criteria as words after “mail”: “with the subject “Welcome” from shop@example.com”."""
        clauses = []
        if self.subject is not None:
            clauses.append(f"with the subject {quoted(self.subject)}")
        if self.sender is not None:
            clauses.append(f"from {quoted_address(self.sender)}")
        if self.to is not None:
            clauses.append(f"to {quoted_address(self.to)}")
        if self.matching is not None:
            clauses.append(f"matching {_function_name(self.matching)}")
        return " ".join(clauses)

    def describe(self) -> str:
        """Return the criteria as words, with “mail” before them."""
        return f"mail {self}".rstrip()


def nearest(criteria: Criteria, messages: Iterable[Message]) -> list[tuple[Message, list[CriterionResult]]]:
    """Return the messages that do not match, with their properties: the closest first, and of these the newest."""
    results = [(message, criteria.judge(message)) for message in messages]
    missed = [(message, each) for message, each in results if not all(result.met for result in each)]
    return sorted(missed, key=lambda pair: (-sum(result.met for result in pair[1]), -pair[0].uid))


def describe_miss(
    criteria: Criteria, n: int, received: Sequence[Message], address: str, seconds: float, after: Message | None
) -> str:
    """Describe the criteria and the mails that arrived instead, the closest first. `received` has the oldest first."""
    fitting = [message for message in received if criteria.fits(message)]
    later = f" after {after!r}" if after else ""
    what = f"no {criteria.describe()}" if n == 1 else f"{len(fitting)} of {n} × {criteria.describe()}"
    lines = [f"{what} arrived for {address} within {spoken(seconds)}{later}"]
    lines += [f"  matched: {message!r}" for message in fitting]
    near = nearest(criteria, received)
    if not near:
        return "\n".join([*lines, *([] if fitting else ["the mailbox is empty"])])
    lines.append(
        "1 other mail arrived:" if len(near) == 1 else f"{len(near)} other mails arrived, closest match first:"
    )
    for message, results in near[:_MAX_LISTED]:
        lines.append(f"  {message!r}")
        lines += [f"      {each.name}: {'matches' if each.met else each.mismatch}" for each in results]
    lines += [f"  … and {len(near) - _MAX_LISTED} more"] if len(near) > _MAX_LISTED else []
    return "\n".join(lines)


def quoted(expected: Text) -> str:
    """Quote a text or a pattern for a sentence."""
    return f"“{expected}”" if isinstance(expected, str) else f"/{expected.pattern}/"


def quoted_address(expected: Text) -> str:
    """Format an address, or quote a pattern, for a sentence."""
    return expected if isinstance(expected, str) else quoted(expected)


def _function_name(function: Predicate) -> str:
    return getattr(function, "__name__", repr(function))


def _text_matches(wanted: Text, found: str) -> bool:
    return wanted.casefold() in found.casefold() if isinstance(wanted, str) else wanted.search(found) is not None


def _address_matches(wanted: Text, found: Iterable[str]) -> bool:
    if isinstance(wanted, str):
        return wanted.lower() in [each.lower() for each in found]
    return any(wanted.search(each) for each in found)
