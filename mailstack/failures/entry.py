"""What an entry says of a failure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """A known failure: what is seen of it, why it happens, what to do, and where that is written."""

    id: str
    title: str
    cause: str
    remedy: str
    source: str
    pattern: re.Pattern[str]  # found in a line of Postfix's or Dovecot's log, or in a reply


def fault(id: str, title: str, *, cause: str, remedy: str, source: str, pattern: str) -> Fault:
    """A Fault, its pattern from text."""
    return Fault(id, title, cause, remedy, source, re.compile(pattern))
