"""200 messages at the same time: many senders, many recipients, several ways; some of them fail."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.docker.faults import Mail, Stage

COUNT = 200
_SENDERS = ("alice@example.com", "bob@example.com", "student@example.com", "carol@example.org")
_GOOD = (*_SENDERS, "info@example.com", "team@example.com", "bob+crowd@example.com", "whoever@example.org")
# What a mail from the sender comes to there.
_BAD = {
    "nobody@example.com": "bounced",
    "x@outside.test": "bounced",
    "grey@example.com": "waiting",
    "x@refused.test": "waiting",
    "x@wrong.test": "waiting",
}


def crowd(stage: Stage) -> Sequence[Mail]:
    """Send them, from four threads."""
    chance = random.Random(200)
    tasks = [_task(stage, chance) for _ in range(COUNT)]
    with ThreadPoolExecutor(4) as pool:
        return [sent for mails in pool.map(lambda task: task(), tasks) for sent in mails]


def _task(stage: Stage, chance: random.Random) -> partial[Sequence[Mail]]:
    sender = chance.choice(_SENDERS)
    expected = dict.fromkeys(chance.sample(_GOOD, chance.choice((1, 1, 1, 2, 3))), "delivered")
    if chance.random() < 0.5:
        return partial(stage.submit, expected, sender=sender)
    if chance.random() < 0.3:
        bad = chance.choice(list(_BAD))
        expected = {**expected, bad: _BAD[bad]} if chance.random() < 0.5 else {bad: _BAD[bad]}
    return partial(stage.send, expected, sender=sender)
