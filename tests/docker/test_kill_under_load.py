"""Every mail that was accepted with 250 arrives, whichever container is killed in the middle of a load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import docker
import pytest

from mailstack.actions import queues, sending
from mailstack.errors import MailstackError
from mailstack.lab.running import RunningLab
from mailstack.load.ledger import Outcome
from mailstack.load.performance import LoadProgress, perform
from mailstack.load.plan import Plan
from mailstack.model import Deadline
from mailstack.protocol import imap, trust
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

# Enough for every connection and every delivery to be in the middle of something when it happens.
PLAN = Plan(connections=8, messages=400, seconds=None, mailboxes=50)
KILLED_AFTER = 100
# A mail comes twice where its delivery's 250 was lost: one that Dovecot had saved, and nobody was left to say so, or to
# note it (RFC 1047). At most as many as are delivered side by side: lmtp_destination_concurrency_limit in main.cf.
SIDE_BY_SIDE = 8


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return the lab whose containers are killed one after the other."""
    with labs.one("kill") as running:
        yield running


class Kill:
    """Kills and restarts a service after so many mails were accepted, and then flushes the queues again and again."""

    def __init__(self, lab: RunningLab, service: str, before: Callable[[], None]) -> None:
        self._lab, self._service, self._before = lab, service, before
        self.taken = -1  # when it happened

    def __call__(self, now: LoadProgress) -> None:
        if self.taken >= 0:
            with suppress(MailstackError):  # Postfix has only just been started: the next time, then
                queues.flush(self._lab.engine, queues.containers(self._lab))
        elif now.sent >= KILLED_AFTER:
            container = docker.from_env().containers.get(self._lab.service(self._service).container)
            self._before()
            container.kill("SIGKILL")
            self.taken = now.sent
            container.start()


def performed(lab: RunningLab, service: str, before: Callable[[], None] = lambda: None) -> Outcome:
    """Run a load in which a service is killed. All accepted mails must be in the mailboxes, and nowhere else."""
    kill = Kill(lab, service, before)
    outcome = perform(lab, PLAN, on_progress=kill)
    assert KILLED_AFTER <= kill.taken < 400, kill.taken
    assert len(outcome.accepted) >= kill.taken
    assert outcome.lost == () and outcome.waiting == {} and outcome.unseen == 0, outcome.json()
    assert outcome.delivered == len(outcome.accepted)
    assert set(outcome.doubled.values()) <= {2} and len(outcome.doubled) <= SIDE_BY_SIDE, outcome.doubled
    return outcome


def test_postfix_is_killed_and_no_mail_that_it_took_is_lost(lab: RunningLab) -> None:
    """Its clients' connections are gone with it: they have fewer mails taken than they wanted to send."""
    assert KILLED_AFTER <= len(performed(lab, "postfix").accepted) < 400


def test_dovecot_is_killed_and_no_mail_is_lost_nor_refused(lab: RunningLab) -> None:
    assert len(performed(lab, "dovecot").accepted) == 400


def test_the_sender_is_killed_and_the_mails_it_had_arrive_once(lab: RunningLab) -> None:
    message_ids = [f"<kill-{number}@example.com>" for number in range(10)]

    def submit() -> None:
        for number, message_id in enumerate(message_ids):
            letter = sending.letter(
                lab.definition(), "student@example.com", ["bob@example.com"], f"{number}", "Keep.", []
            )
            sending.from_sender(lab, letter, message_id)

    outcome = performed(lab, "sender", submit)
    assert len(outcome.accepted) == 400 and outcome.doubled == {}  # the load does not pass it
    with imap.mailbox(
        lab.endpoints["imaps"], trust.tls_context(lab.ca_file), "bob@example.com", lab.password("bob@example.com")
    ) as box:
        deadline = Deadline.after(20)
        copies = []
        for message_id in message_ids:
            imap.wait_for(box, message_id, deadline)
            copies.append(len(imap.find(box, message_id)))
    assert set(copies) <= {1, 2} and copies.count(2) <= 1, copies
