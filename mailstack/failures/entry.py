"""The entry of a known failure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """A known failure: its symptom, cause and remedy, and the source that documents them."""

    id: str
    title: str
    cause: str
    remedy: str
    source: str
    pattern: re.Pattern[str]  # found in a line of Postfix's or Dovecot's log, or in a reply


def known_failure(id: str, title: str, *, cause: str, remedy: str, source: str, pattern: str) -> KnownFailure:
    """Return a known failure, with its pattern compiled."""
    return KnownFailure(id, title, cause, remedy, source, re.compile(pattern))
