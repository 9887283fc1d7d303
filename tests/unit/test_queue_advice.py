"""A mail in a queue says for what it waits; notes about it stand below its row."""

from __future__ import annotations

import pytest

from mailstack.actions import queue_advice
from mailstack.cli.queue import drawn
from tests.unit.test_queues import NOW, entry


@pytest.mark.parametrize(
    ("name", "next_try", "expected"),
    [
        ("deferred", NOW + 38, "the next attempt, in 38 s"),
        ("deferred", NOW - 1, "the next attempt, at the next queue run"),
        ("active", None, "the next hop: Postfix looks it up, connects, or waits for its reply"),
        ("hold", None, "its release from hold: `mailstack queue release A`"),
        ("incoming", None, "Postfix to pick it up"),
    ],
)
def test_a_mail_waits_for_what_its_queue_means(name: str, next_try: float | None, expected: str) -> None:
    waiting = entry(name=name, next_try=next_try)
    assert queue_advice.waits_for(waiting, NOW, "mailstack queue release A") == expected


def test_the_next_hop_stands_below_the_reason_of_its_mail_alone() -> None:
    first, second = entry("A1"), entry("B2")
    lines = drawn([first, second], NOW, 80, {"A1": ["goes to [postfix]:587 (relayhost on the machine sender)"]})
    assert [line.strip() for line in lines].count("goes to [postfix]:587 (relayhost on the machine sender)") == 1
    assert lines.index("    goes to [postfix]:587 (relayhost on the machine sender)") < next(
        place for place, line in enumerate(lines) if "B2" in line
    )
