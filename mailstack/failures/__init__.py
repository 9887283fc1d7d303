"""Known failures of mail servers, recognised in the logs of Postfix and Dovecot and in servers' replies.

Each entry was caused and observed in a lab (tests/docker/faults). The patterns match the messages of Postfix 3.10 and
Dovecot 2.4, which have been the same for many versions. Pure functions of text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mailstack.failures import local, login, network, refusals, tls
from mailstack.failures.entry import KnownFailure as KnownFailure

# The more precise before the more general: the first match counts.
ALL: tuple[KnownFailure, ...] = (
    *local.ENTRIES,
    *tls.ENTRIES,
    *login.ENTRIES,
    *refusals.ENTRIES,
    *network.ENTRIES,
)

# Lines that report no failure, even if they quote text of a stranger (a Message-ID is the sender's own words). Nine in
# ten lines of a log match, so the search ends early for them.
_HARMLESS = re.compile(
    r"\]: (?:(?:dis)?connect from |(?:Anonymous|Untrusted|Trusted|Verified) TLS connection established "
    r"|\w+: (?:client=|(?:resent-)?message-id=|from=<.*>, size=\d+, nrcpt=|removed$"
    r"|to=<\S*>, (?:\w+=\S+ )*status=(?:sent|deliverable) \())"
    r"|(?:: saved mail to \S+|: (?:Connect|Disconnect) from \S+(?:: Logged out.*)?|: Logged in: .*)$"
)

# The time of a line: a container's or a log file's own (RFC 3339, Dovecot's), or syslog's (RFC 3164).
_TIMESTAMP = re.compile(
    r"(?:[\w.-]+ +\| )?"
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) "
)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A known failure in a log: its count, its first and last time as the log has them, and an example."""

    failure: KnownFailure
    count: int
    first: str
    last: str
    example: str


def recognise(text: str) -> KnownFailure | None:
    """Return the most precise known failure that a log line or a server's reply reports, or None."""
    if _HARMLESS.search(text):
        return None
    return next((failure for failure in ALL if failure.pattern.search(text)), None)


def find_failures(lines: Iterable[str]) -> list[Occurrence]:
    """Return each known failure in some lines once, in the order of its first line. Keeps one line of each."""
    found: dict[str, Occurrence] = {}
    for line in lines:
        failure = recognise(line)
        if failure is None:
            continue
        when = timestamp(line)
        before = found.get(failure.id)
        if before is None:
            found[failure.id] = Occurrence(failure, 1, when, when, line.strip())
        else:
            found[failure.id] = Occurrence(failure, before.count + 1, before.first, when, before.example)
    return list(found.values())


def timestamp(line: str) -> str:
    """Return the time at the beginning of a line, unchanged; "" if there is none."""
    found = _TIMESTAMP.match(line)
    return found[1] if found else ""
