"""What a trace says about a delivery attempt is what happened, in words of its own."""

from __future__ import annotations

from mailstack.trace import event_text
from mailstack.trace.journey import Journey
from tests.unit.test_explaining import MISSPELT, REFUSED_PORT
from tests.unit.test_trace import ONE
from tests.unit.test_trace_ends import REFUSED_BY_A_RULE, journeys


def text(journey: Journey) -> str:
    """Return a journey as `trace` shows it, in one line."""
    return " ".join(line for event in journey.events for line in event_text.describe(event))


def test_a_refused_connection_is_no_missing_answer_and_nothing_was_connected() -> None:
    (journey,) = journeys(REFUSED_PORT.replace("0.04/0.06/0/0", "0.04/0.06/0.5/0"))
    shown = text(journey)
    assert "4.4.1 is: transient failure: the host refused the connection" in shown and "no answer" not in shown
    assert "500 ms trying to connect" in shown and "500 ms connecting" not in shown


def test_a_name_that_was_not_found_is_no_missing_route() -> None:
    (journey,) = journeys(MISSPELT)
    assert "the name of the next hop was not found" in text(journey) and "route" not in text(journey)


def test_a_mail_that_another_hop_has_now_is_passed_on_and_not_sent() -> None:
    (journey,) = journeys(ONE)
    assert "passed on, for b@b.example" in text(journey)


def test_a_path_in_place_of_an_address_is_explained() -> None:
    lmtp = REFUSED_PORT.replace("relay=none", "relay=mx.example.com[/run/sockets/lmtp]")
    (journey,) = journeys(lmtp)
    assert "mx.example.com[/run/sockets/lmtp] (a Unix socket of this machine, to the mail store)" in text(journey)


def test_the_relay_user_that_mailstack_made_up_is_explained() -> None:
    (journey,) = journeys(REFUSED_BY_A_RULE)
    assert "as relay-b8d88379 (the sender's relay user)" in text(journey)


def test_the_reason_is_that_of_the_last_attempt_and_not_one_of_an_earlier_attempt() -> None:
    missing = "error: open database /etc/postfix/sasl_passwd.lmdb: No such file or directory"
    first = REFUSED_PORT.replace("connect to postfix[10.213.229.163]:588: Connection refused\n2026", missing + "\n2026")
    later = REFUSED_PORT.splitlines()[-1].replace(":50.", ":59.").replace("Connection refused", "No route to host")
    (early,), (late,) = journeys(first), journeys(first + later)
    assert early.failure is not None and early.failure.id == "map-missing"
    assert late.failure is not None and late.failure.id == "no-route"
