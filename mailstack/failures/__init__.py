"""Known failures of mail servers, recognised in what Postfix and Dovecot log and in what servers reply.

Each entry was caused in a lab and seen there (tests/docker/faults); the patterns are of Postfix 3.10's and Dovecot
2.4's words, which have been the same for many versions. Pure functions of text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mailstack.failures import local, login, network, refusals, tls
from mailstack.failures.entry import Fault as Fault

# The more precise before the more general: what is looked up here is the first that matches.
ALL: tuple[Fault, ...] = (
    *local.ENTRIES,
    *tls.ENTRIES,
    *login.ENTRIES,
    *refusals.ENTRIES,
    *network.ENTRIES,
)

# Lines that tell of no failure, whatever a stranger has written into them (a Message-ID is the sender's own words);
# nine in ten of a log's, and done with at once.
_HARMLESS = re.compile(
    r"\]: (?:(?:dis)?connect from |(?:Anonymous|Untrusted|Trusted|Verified) TLS connection established "
    r"|\w+: (?:client=|(?:resent-)?message-id=|from=<.*>, size=\d+, nrcpt=|removed$"
    r"|to=<\S*>, (?:\w+=\S+ )*status=(?:sent|deliverable) \())"
    r"|(?:: saved mail to \S+|: (?:Connect|Disconnect) from \S+(?:: Logged out.*)?|: Logged in: .*)$"
)

# When a line was logged: a container's or a file's own time (RFC 3339, Dovecot's), or syslog's (RFC 3164).
_WHEN = re.compile(
    r"(?:[\w.-]+ +\| )?"
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) "
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A known failure in some log: how often it was logged, when (in the log's own words) first and last, and how."""

    fault: Fault
    count: int
    first: str
    last: str
    example: str


def recognise(text: str) -> Fault | None:
    """The failure that a log line, or a server's reply, tells of: the most precise of those known, or None."""
    if _HARMLESS.search(text):
        return None
    return next((fault for fault in ALL if fault.pattern.search(text)), None)


def seen(lines: Iterable[str]) -> list[Seen]:
    """Each known failure in some lines once, in the order in which they come first. Keeps one line of each."""
    found: dict[str, Seen] = {}
    for line in lines:
        fault = recognise(line)
        if fault is None:
            continue
        when = written(line)
        before = found.get(fault.id)
        if before is None:
            found[fault.id] = Seen(fault, 1, when, when, line.strip())
        else:
            found[fault.id] = Seen(fault, before.count + 1, before.first, when, before.example)
    return list(found.values())


def written(line: str) -> str:
    """The time that stands in front of a line, as it stands there; "" where there is none."""
    found = _WHEN.match(line)
    return found[1] if found else ""
