"""Accepted mail is not lost: it arrives once, whatever is killed."""

from __future__ import annotations

import email.utils
import smtplib
import time
from collections.abc import Callable, Iterator

import docker
import pytest
from docker.models.containers import Container

from mailstack import state
from mailstack.actions import queues, sending
from mailstack.errors import MailstackError
from mailstack.lab import up as life
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.model import SERVICES, Deadline
from mailstack.protocol import imap, smtp, trust
from tests import engines
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

ARRIVAL_SECONDS = 20.0


def _quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def shared(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("durable") as running:
        yield running


@pytest.fixture
def lab(shared: RunningLab) -> RunningLab:
    """Return the lab that the tests share, up again in whatever state the test before has left it."""
    return up_again(shared) if any(each.state != "running" for each in shared.services()) else shared


def new_id() -> str:
    """Return a Message-ID that no other mail has."""
    return email.utils.make_msgid(domain="example.com")


def up_again(lab: RunningLab) -> RunningLab:
    """Run `mailstack up` on the lab, unchanged."""
    life.up(engines.here(), life.Request(lab.name), _quiet)
    return RunningLab(lab.name, engines.here())


def accepted(lab: RunningLab, subject: str) -> str:
    """Submit a mail from alice to bob that Postfix accepts with 250; return its Message-ID."""
    message = draft.new_message(sender="alice@example.com", to=["bob@example.com"], subject=subject, body="Keep me.\n")
    smtp.submit(
        smtp.dial_to(lab.endpoints["submission"]),
        trust.tls_context(lab.ca_file),
        "alice@example.com",
        lab.password("alice@example.com"),
        message,
        ["bob@example.com"],
    )
    return str(message["Message-ID"])


def arrived_once(lab: RunningLab, message_id: str, address: str = "bob@example.com") -> bool:
    """Return whether the mail is in the mailbox once, after the queues have no more deliveries."""
    return copies(lab, [message_id], address) == [1]


def copies(lab: RunningLab, message_ids: list[str], address: str = "bob@example.com") -> list[int]:
    """Return how often each mail is in the mailbox, after the queues have no more deliveries."""
    deadline, where = Deadline.after(ARRIVAL_SECONDS), queues.containers(lab)
    empty = False
    while not empty:
        assert not deadline.passed(), queues.of(lab.engine, where)
        # Again and again: a mail that is being tried while its server only just starts waits for its next turn.
        queues.flush(lab.engine, where)
        empty, _ = queues.wait(lab.engine, where, queues.CONDITIONS["empty"], Deadline.after(0.5))
    context = trust.tls_context(lab.ca_file)
    with imap.mailbox(lab.endpoints["imaps"], context, address, lab.password(address)) as box:
        return [len(imap.find(box, message_id)) for message_id in message_ids]


def eventually(met: Callable[[], bool]) -> None:
    """Poll for a condition that has no event."""
    deadline = Deadline.after(20)
    while not met():
        assert not deadline.passed()
        time.sleep(0.05)


def greets(lab: RunningLab) -> bool:
    """Return whether Postfix greets on 587: a published port accepts connections before its server does."""
    try:
        with smtp.dial_to(lab.endpoints["submission"])() as connection:
            return connection.recv(4) == b"220 "
    except OSError:
        return False


def may_log_in(lab: RunningLab) -> bool:
    """Return whether alice can log in on 587."""
    context = trust.tls_context(lab.ca_file)
    try:
        with smtp.Smtp(
            smtp.dial_to(lab.endpoints["submission"]), name="postfix", tls="starttls", context=context
        ) as session:
            session.login("alice@example.com", lab.password("alice@example.com").reveal())
    except (smtplib.SMTPException, MailstackError, OSError):
        return False
    return True


def queued(lab: RunningLab, service: str) -> list[queues.Entry]:
    """Return the mails in the queue of a service."""
    return queues.entries(lab.engine, lab.service(service).container, service)


def container(lab: RunningLab, service: str) -> Container:
    """Return a service's container, to be killed."""
    return docker.from_env().containers.get(lab.service(service).container)


def test_a_mail_that_waits_in_postfix_outlives_its_sigkill_and_arrives_once(lab: RunningLab) -> None:
    dovecot = container(lab, "dovecot")
    # Logged in while Dovecot lives, for it is whom Postfix asks; then the mail is taken, and waits.
    with smtp.Smtp(
        smtp.dial_to(lab.endpoints["submission"]),
        name="localhost",
        tls="starttls",
        context=trust.tls_context(lab.ca_file),
    ) as session:
        session.login("alice@example.com", lab.password("alice@example.com").reveal())
        message = draft.new_message(sender="alice@example.com", to=["bob@example.com"], subject="Wait", body="Wait.\n")
        dovecot.kill("SIGKILL")
        assert session.send_message(message) == {}
    (entry,) = queued(lab, "postfix")
    assert [each.address for each in entry.recipients] == ["bob@example.com"]
    container(lab, "postfix").kill("SIGKILL")
    again = up_again(lab)
    assert arrived_once(again, str(message["Message-ID"]))


def test_a_mail_that_waits_in_the_sender_outlives_its_sigkill_and_arrives_once(lab: RunningLab) -> None:
    container(lab, "postfix").kill("SIGKILL")
    message_id = new_id()
    letter = sending.letter(lab.definition(), "student@example.com", ["bob@example.com"], "Wait", "Wait.", [])
    sending.from_sender(lab, letter, message_id)
    deadline = Deadline.after(ARRIVAL_SECONDS)
    while not queued(lab, "sender"):
        assert not deadline.passed()
        time.sleep(0.02)
    container(lab, "sender").kill("SIGKILL")
    again = up_again(lab)
    assert arrived_once(again, message_id)


def test_a_delivered_mail_outlives_dovecots_sigkill(lab: RunningLab) -> None:
    message_id = accepted(lab, "Delivered")
    assert arrived_once(lab, message_id)
    container(lab, "dovecot").kill("SIGKILL")
    assert arrived_once(up_again(lab), message_id)


def test_a_lock_that_a_killed_dovecot_left_behind_keeps_no_mail_waiting(lab: RunningLab) -> None:
    """It names a process by a number that another has after the restart: minutes would be waited for that one."""
    dovecot = container(lab, "dovecot")
    index = "/srv/mail/bob@example.com/sdbox/mailboxes/INBOX/dbox-Mails"
    plant = f"mkdir -p -m 0700 {index} && printf 1:dovecot > {index}/dovecot.index.log.newlock"
    result = dovecot.exec_run(["sh", "-c", plant], user="2000")
    assert result.exit_code == 0, result.output
    dovecot.kill("SIGKILL")
    again = up_again(lab)
    assert arrived_once(again, accepted(again, "Not locked out"))


def test_of_mails_that_are_accepted_while_everything_is_killed_none_is_lost(lab: RunningLab) -> None:
    """Killed in the middle of its work, Postfix may refuse a mail, but has lost none that it answered 250 to."""
    context = trust.tls_context(lab.ca_file)
    taken = []
    with (
        pytest.raises((smtplib.SMTPException, OSError)),
        smtp.Smtp(
            smtp.dial_to(lab.endpoints["submission"]), name="localhost", tls="starttls", context=context
        ) as session,
    ):
        session.login("alice@example.com", lab.password("alice@example.com").reveal())
        for number in range(200):
            message = draft.new_message(
                sender="alice@example.com", to=["bob@example.com"], subject=f"Mail {number}", body="Keep me.\n"
            )
            session.send_message(message)
            taken.append(str(message["Message-ID"]))
            if number == 20:
                for service in ("postfix", "dovecot"):
                    container(lab, service).kill("SIGKILL")
    assert 20 < len(taken) < 200
    again = up_again(lab)
    # A mail whose delivery was under way may come twice (RFC 1047): it was delivered, and nobody was left to note it.
    # At most as many as are delivered side by side: lmtp_destination_concurrency_limit in stack/postfix/main.cf.
    found = copies(again, taken)
    assert set(found) <= {1, 2}, found
    assert found.count(2) <= 8, found


@pytest.mark.parametrize("service", SERVICES)
def test_docker_restart_keeps_mails_and_the_lab_works_on(lab: RunningLab, service: str) -> None:
    message_id = accepted(lab, "Before the restart")
    assert arrived_once(lab, message_id)
    container(lab, service).restart(timeout=10)
    assert arrived_once(up_again(lab), message_id)
    letter = sending.letter(lab.definition(), "student@example.com", ["bob@example.com"], "After", "After.", [])
    # An idle smtpd that knew the Dovecot of before answers 454 once: then the mail waits for its next turn.
    message_id = new_id()
    sending.from_sender(lab, letter, message_id)
    assert arrived_once(lab, message_id)


def test_sockets_that_a_sigkill_left_behind_are_replaced_and_mail_goes_on(lab: RunningLab) -> None:
    there = "test -S /run/sockets/lmtp && test -S /run/sockets/sasl"
    container(lab, "dovecot").kill("SIGKILL")
    left = lab.engine.execute(lab.service("postfix").container, ["sh", "-c", there])
    assert left.code == 0, "nothing was left behind, so the rest proves nothing"
    again = up_again(lab)
    assert arrived_once(again, accepted(again, "After the kill"))


def test_postfix_that_is_there_before_dovecot_serves_as_soon_as_dovecot_is_there(lab: RunningLab) -> None:
    dovecot, postfix = container(lab, "dovecot"), container(lab, "postfix")
    dovecot.stop(timeout=10)
    assert postfix.exec_run(["rm", "/run/sockets/lmtp", "/run/sockets/sasl"]).exit_code == 0  # as in a new lab
    postfix.restart(timeout=10)
    eventually(lambda: greets(lab))
    assert not may_log_in(lab)
    dovecot.start()
    # Postfix gives an smtpd(8) that failed at its start a second: service_throttle_time in stack/postfix/main.cf.
    eventually(lambda: may_log_in(lab))


def test_down_removes_queues_and_mailboxes(labs: Labs) -> None:
    name = labs.new_name("gone")
    assert accepted(labs.up(name), "Soon gone")
    client = docker.from_env()
    assert len(client.volumes.list(filters={"label": f"mailstack.lab={name}"})) == 5
    labs.down(name)
    assert client.volumes.list(filters={"label": f"mailstack.lab={name}"}) == []
    assert engines.here().leftovers(name, state.owner()) == []
