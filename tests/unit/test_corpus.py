"""Every captured journey is traced to its real outcome from its own log lines, even if lines are lost.

The captures (tests/data/journeys) are logs of labs, each with the mails sent and their outcomes. These are known
from the sending side and from the mailboxes, not from the logs. `python -m tests.journeys` captures them again.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mailstack.failures import recognise
from mailstack.trace import assemble, collect
from mailstack.trace.events import Event
from mailstack.trace.journey import ARRIVED, Journey

CORPUS = Path(__file__).parents[1] / "data" / "journeys"
NAMES = sorted(path.stem for path in CORPUS.glob("*.json"))

# What a journey cannot do without: when one of these is lost, something is said to be missing.
NEEDED = ("handed-in", "accepted", "named", "queued", "attempt", "saved", "removed")


@cache
def lines(name: str) -> tuple[str, ...]:
    """Return the log of a capture."""
    path = CORPUS / f"{name}.log"
    if path.exists():
        return tuple(path.read_text().splitlines())
    return tuple(gzip.decompress(path.with_suffix(".log.gz").read_bytes()).decode().splitlines())


@cache
def happened(name: str) -> tuple[dict[str, Any], ...]:
    """Return the mails sent in a capture, and their outcomes."""
    return tuple(json.loads((CORPUS / f"{name}.json").read_text())["messages"])


def journeys(log: tuple[str, ...], query: str, limit: int = collect.MESSAGES) -> list[Journey]:
    """Return the journeys that a query finds."""

    def read() -> Iterator[tuple[str, str]]:
        for line in log:
            yield "", line

    found = collect.search(read, query, limit)
    every = assemble.assemble(collect.collect(read, found.seeds, found.refusals))
    return [each for each in every if not found.name or each.is_named(found.name)]


@cache
def everything(name: str) -> tuple[Journey, ...]:
    """Return every journey in a capture, traced together."""
    return tuple(journeys(lines(name), "", 10_000))


def the(name: str, message: dict[str, Any]) -> Journey:
    """Return the only journey of a message."""
    query = message["query"].strip("<>")
    found = [each for each in everything(name) if each.is_named(query)]
    found = found or journeys(lines(name), query)  # a text
    assert len(found) == 1, [each.sentence() for each in found]
    return found[0]


def test_there_are_at_least_thirty_captures_and_one_of_two_hundred_messages() -> None:
    assert len(NAMES) >= 30
    assert max(len(happened(name)) for name in NAMES) >= 200


@pytest.mark.parametrize("name", NAMES)
def test_a_captured_journey_is_traced_to_what_became_of_it(name: str) -> None:
    for message in happened(name):
        journey = the(name, message)
        became = {outcome.original: outcome.status for outcome in journey.outcomes}
        if "" in became:  # a mail that was never tried: who it is for stands in the queue alone
            assert set(became.values()) == set(message["recipients"].values()), journey.sentence()
        else:
            # An alias that leads to a mailbox which gets the mail anyway is not tried by itself: cleanup(8).
            assert became.items() <= message["recipients"].items(), journey.sentence()
            others = {status for address, status in message["recipients"].items() if address not in became}
            assert others <= {"delivered"}, journey.sentence()
            reached = {outcome.recipient for outcome in journey.outcomes if outcome.status == "delivered"}
            assert len(reached) == sum(message["mailboxes"].values()), journey.sentence()
        assert journey.status == message["status"], journey.sentence()


@pytest.mark.parametrize("name", NAMES)
def test_a_message_is_traced_alone_as_it_is_among_others(name: str) -> None:
    for message in happened(name)[::10]:
        (alone,) = journeys(lines(name), message["query"])
        assert alone.json() == the(name, message).json()


@pytest.mark.parametrize("name", NAMES)
def test_the_reason_of_a_failure_is_in_its_journey(name: str) -> None:
    fault = json.loads((CORPUS / f"{name}.json").read_text())["fault"]
    if fault is None:
        return
    journeys = [the(name, message) for message in happened(name)]
    said = [event.reply or event.what for journey in journeys for event in journey.events]
    assert fault in {found.id for text in said if (found := recognise(text))}, said
    if [outcome.status in ARRIVED for each in journeys for outcome in each.outcomes] == [False]:
        assert journeys[0].failure is not None and journeys[0].failure.id == fault, journeys[0].failure


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_another_message_enters_a_journey(name: str) -> None:
    taken: dict[int, str] = {}
    for message in happened(name):
        journey = the(name, message)
        own = {message["message_id"], *message["notices"]}
        notices = {hop.queue_id for hop in journey.hops if hop.notice}
        for event in journey.events:
            if event.message_id and event.queue_id not in notices:
                assert f"<{event.message_id}>" in own, event.line.text
            other = taken.setdefault(event.line.position, message["message_id"])
            assert other == message["message_id"], f"in two journeys: {event.line.text}"


def _same(event: Event) -> tuple[str, str, str, str]:
    return event.kind, event.service, event.queue_id, event.recipient


@pytest.mark.parametrize("name", NAMES)
def test_any_line_that_is_lost_is_said_to_be_missing(name: str) -> None:
    for message in happened(name)[:3]:
        whole = the(name, message)
        for event in whole.events:
            again = [each for each in whole.events if _same(each) == _same(event)]
            if event.kind not in NEEDED or event.status == "deferred" or whole.missing or len(again) > 1:
                continue
            position = event.line.position
            log = (*lines(name)[:position], *lines(name)[position + 1 :])
            # Where the only line with its Message-ID is lost, the mail is known by its queue id alone.
            parts = journeys(log, message["query"]) or journeys(log, event.queue_id)
            assert any(part.missing for part in parts), f"nothing is missing without: {event.line.text}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
def test_lines_lost_at_random_never_stop_a_trace(name: str, share: float) -> None:
    chance = random.Random(f"{name} {share}")
    for _ in range(3):
        log = tuple(line for line in lines(name) if chance.random() > share)
        for message in happened(name)[:5]:
            for part in journeys(log, message["query"]):
                assert part.sentence() and part.json()["status"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_said_to_be_missing_from_a_whole_log(name: str) -> None:
    for message in happened(name):
        journey = the(name, message)
        assert not journey.missing, journey.missing


@pytest.mark.parametrize("name", NAMES)
def test_a_journey_over_a_socket_is_traced_as_the_one_over_the_network(name: str) -> None:
    log = tuple(
        re.sub(r"\bbackend\[[\d.]+\](:24\b)?", "postfix.example.com[/run/sockets/lmtp]", x) for x in lines(name)
    )
    local = {each.message_id: each for each in journeys(log, "", 10_000) if each.message_id}
    for journey in everything(name):
        if journey.message_id:
            told = local[journey.message_id]
            assert (told.status, told.missing, told.unseen) == (journey.status, journey.missing, journey.unseen)
            assert [each.status for each in told.outcomes] == [each.status for each in journey.outcomes]
