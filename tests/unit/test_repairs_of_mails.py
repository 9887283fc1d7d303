"""A mail that waits says for what; the setting of its failure is that of the machine which is to blame."""

from __future__ import annotations

import dataclasses

import pytest

from mailstack import failures
from mailstack.actions import repairs, repairs_by_size
from mailstack.text import hint
from mailstack.trace import pending
from tests.unit.test_explaining import MISSPELT, REFUSED_PORT
from tests.unit.test_trace import ONE
from tests.unit.test_trace_ends import REFUSED_BY_A_RULE, TOO_LARGE, journeys

SERVICES = ["sender", "postfix", "dovecot"]


def test_a_mail_that_waits_says_when_it_is_tried_again_and_how_often_it_was() -> None:
    (journey,) = journeys(REFUSED_PORT + REFUSED_PORT.splitlines()[-1].replace(":50.607", ":59.607"))
    assert pending.waits_for(journey, 0.0) == "the next attempt, at the next queue run; 2 attempts failed"
    timed = dataclasses.replace(journey, outcomes=(dataclasses.replace(journey.outcomes[0], next_try=126.4),))
    assert pending.waits_for(timed, 100.0) == "the next attempt, in 26 s; 2 attempts failed"


def test_a_mail_that_was_never_tried_waits_for_its_next_hop() -> None:
    (journey,) = journeys("".join(MISSPELT.splitlines(keepends=True)[:3]))
    assert pending.waits_for(journey, 0.0).startswith("the next hop: Postfix looks it up, connects, or waits")


def test_a_mail_with_a_final_result_waits_for_nothing() -> None:
    assert [pending.waits_for(journey, 0.0) for journey in (*journeys(ONE), *journeys(REFUSED_BY_A_RULE))] == ["", ""]


@pytest.mark.parametrize(("side", "machine"), [("client", "sender"), ("server", "postfix"), ("store", "dovecot")])
def test_the_machine_of_a_setting_is_the_client_the_server_or_the_mail_store(side: str, machine: str) -> None:
    (journey,) = journeys(REFUSED_BY_A_RULE)
    assert repairs.machine_of(side, journey.outcomes[0], SERVICES, "postfix", "dovecot") == machine


def test_of_a_client_that_was_refused_the_server_alone_is_known() -> None:
    (journey,) = journeys("".join(line for line in REFUSED_BY_A_RULE.splitlines(True) if " DDF7F1B2020: " in line))
    (outcome,) = (dataclasses.replace(each, queue_id="") for each in journey.outcomes)
    assert repairs.machine_of("server", outcome, SERVICES, "postfix", "dovecot") == "postfix"
    assert repairs.machine_of("client", outcome, SERVICES, "postfix", "dovecot") == ""


def test_an_address_in_a_command_is_one_word_whatever_is_in_it() -> None:
    words = {"next": "postfix", "value": "x", "recipient": "a b;reboot@example.com"}
    account = repairs.filled(repairs.RULES["mailbox-unknown"], words, hint.line)
    assert account.endswith(" 'a b;reboot@example.com'")


def test_a_limit_is_raised_to_more_than_the_size_of_the_mail() -> None:
    (journey,) = journeys(ONE)
    event = dataclasses.replace(journey.events[0], reply="message size 154068 exceeds size limit 102400 of server a")
    large = dataclasses.replace(journey, events=(event,))
    assert repairs_by_size.size(large) == 154068
    assert 154068 < int(repairs_by_size.size_limit(large, "102400")) < 2 * 154068


def test_a_limit_is_doubled_for_a_mail_whose_size_no_log_tells() -> None:
    (journey,) = journeys(TOO_LARGE)
    assert 2 * 102400 <= int(repairs_by_size.size_limit(journey, "102400")) < 4 * 102400


def test_every_setting_is_that_of_a_known_failure() -> None:
    assert set(repairs.RULES) <= {failure.id for failure in failures.ALL}
