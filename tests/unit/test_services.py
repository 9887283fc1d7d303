"""A lab's services during `up`, and the deadline that starts when the lab should be up."""

from __future__ import annotations

import threading

import pytest

from mailstack.engine import compose
from mailstack.lab.service_events import Starts
from mailstack.model import SERVICES, Countdown

SAID = """\
 Network mailstack-a_mail  Creating
 Volume mailstack-a_queue Created
 Container mailstack-a-postfix-1 Starting
 Container mailstack-a-dovecot-1  Started
Error response from daemon: no such image: Container of nothing"""


@pytest.mark.parametrize(
    ("line", "service"),
    [
        (" Container mailstack-a-postfix-1 Started ", "postfix"),
        (" Container mailstack-a-my-mta-1  Started", "my-mta"),
        (" Container mailstack-a-postfix-1 Starting ", ""),
        (" Container mailstack-b-dovecot-1 Started ", ""),
        (" Container my-name Started ", ""),
        ("postfix Started", ""),
    ],
)
def test_what_compose_has_started_is_known_by_its_words(line: str, service: str) -> None:
    assert compose.started_service(line, "mailstack-a") == service


def test_of_what_compose_says_its_steps_are_no_complaints() -> None:
    assert compose.without_progress(SAID) == SAID.splitlines()[-1]


def test_what_compose_asked_for_and_was_not_given_is_known_by_its_words() -> None:
    starts = Starts("mailstack-a")
    for line in (*SAID.splitlines(), " Network mailstack-a_edge Creating ", " Volume mailstack-a_queue  Creating"):
        starts.on_line(line)
    assert starts.unfinished_objects() == {
        "network mailstack-a_mail",
        "network mailstack-a_edge",
        "volume mailstack-a_queue",
    }
    starts.on_line(" Network mailstack-a_mail  Created ")
    starts.on_line(" Volume mailstack-a_queue  Removed")
    assert starts.unfinished_objects() == {"network mailstack-a_edge"}


def test_a_service_is_waited_for_until_it_has_been_started() -> None:
    starts, waited = Starts("mailstack-a"), threading.Event()

    def wait() -> None:
        starts.wait("dovecot")
        waited.set()

    threading.Thread(target=wait, daemon=True).start()
    for line in SAID.splitlines()[:3]:
        starts.on_line(line)
    assert not waited.wait(0.02)
    starts.on_line(SAID.splitlines()[3])
    assert waited.wait(5)


def test_when_compose_has_ended_nothing_is_waited_for() -> None:
    starts = Starts("mailstack-a")
    starts.finish()
    for service in SERVICES:
        starts.wait(service)


def test_a_countdown_counts_from_when_it_is_started() -> None:
    countdown = Countdown(30.0)
    assert (countdown.seconds, countdown.remaining(), countdown.passed()) == (30.0, float("inf"), False)
    countdown.start()
    assert 29.0 < countdown.remaining() <= 30.0
    countdown.cancel()
    assert (countdown.remaining(), countdown.passed()) == (0.0, True)
