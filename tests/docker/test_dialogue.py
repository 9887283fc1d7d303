"""What client and server said: of each way into the lab, with the credentials blotted out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mailstack import mail, post
from mailstack.model import Deadline
from mailstack.running import RunningLab
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

SECONDS = 15.0


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    name = labs.new_name("dialogue")
    yield labs.up(name)
    labs.down(name)


def received(lab: RunningLab, address: str, message_id: str) -> tuple[str, ...]:
    """The Received: fields of a mail in a mailbox, the newest hop first, and its other fields' names."""
    context = mail.tls_context(lab.ca_file)
    with mail.mailbox(lab.endpoints["imaps"], context, address, lab.password(address)) as box:
        headers = dict(mail.find(box, message_id)[0].headers)
    assert post.ROUTE_HEADER.lower() not in headers
    return headers["received"]


def test_a_mail_can_go_straight_to_the_providers_port_25(lab: RunningLab) -> None:
    letter = post.letter(lab.definition, "student@campus.example", ["bob@example.com"], "Straight", "Hello.", [])
    sent = post.send(lab, letter, "sender", Deadline.after(SECONDS), route="direct")
    hops = received(lab, "bob@example.com", sent.message_id)
    assert "with ESMTPS id" in hops[1], "TLS, and no SASL (RFC 3848)"


def test_a_mail_that_is_recorded_arrives_also_when_nobody_listens(lab: RunningLab) -> None:
    letter = post.letter(lab.definition, "student@example.com", ["bob@example.com"], "Heard by no one", "Hello.", [])
    sent = post.send(lab, letter, "sender", Deadline.after(SECONDS), route="recorded")
    hops = received(lab, "bob@example.com", sent.message_id)
    assert "with ESMTPSA id" in hops[1], "TLS and SASL (RFC 3848)"
    log = lab.engine.logs(lab.service("sender").container)
    assert "name_mask" not in log
    assert "AUTH PLAIN" not in log
