"""Log lines in another order than that of the events."""

from __future__ import annotations

from mailstack.trace.assemble import assemble
from mailstack.trace.collect import Collected, Raw

ARRIVES = [
    "2026-11-23T21:53:14.100Z sender postfix/pickup[20]: 7C8DB16E0B4: uid=1000 from=<a@b.example>",
    "2026-11-23T21:53:14.101Z sender postfix/cleanup[35]: 7C8DB16E0B4: message-id=<{}@example.com>",
    "2026-11-23T21:53:14.102Z sender postfix/qmgr[21]: 7C8DB16E0B4: from=<a@b.example>, size=9, nrcpt=1 (queue active)",
]
SENT = (
    "2026-11-23T21:53:{} sender postfix/smtp[41]: 7C8DB16E0B4: to=<bob@example.com>, relay=postfix[192.0.2.3]:587,"
    " delay=0.07, delays=0/0.02/0.04/0.01, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 8C9DD16E0B2)"
)
REMOVED = "2026-11-23T21:53:14.160000Z sender postfix/qmgr[21]: 7C8DB16E0B4: removed"


def statuses(lines: list[str]) -> list[tuple[str, int]]:
    """Return the status of each journey, and how many lines are reported as missing."""
    found = assemble(Collected(tuple(Raw("sender", number, line) for number, line in enumerate(lines))))
    return [(str(journey.json()["status"]), len(journey.json()["missing"])) for journey in found]


def test_a_delivery_that_is_logged_just_after_the_removal_is_of_the_same_message() -> None:
    first = [line.format("first") for line in ARRIVES]
    in_order = statuses([*first, SENT.format("14.159000Z"), REMOVED])
    assert len(in_order) == 1
    assert statuses([*first, REMOVED, SENT.format("14.161000Z")]) == in_order


def test_a_delivery_under_the_same_id_much_later_is_of_another_message() -> None:
    first = [line.format("first") for line in ARRIVES]
    assert len(statuses([*first, SENT.format("14.159000Z"), REMOVED, SENT.format("19.000000Z")])) == 2


def test_an_id_that_is_used_again_at_once_is_another_message_even_so() -> None:
    first, second = ([line.format(name) for line in ARRIVES] for name in ("first", "second"))
    assert len(statuses([*first, REMOVED, SENT.format("14.161000Z"), *second])) == 2
