"""Sustained load: every mail is accounted for in each outcome, and the load leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.actions import queues
from mailstack.actions.accounts import Accounts
from mailstack.cli.load import verdict
from mailstack.errors import CheckFailed, DeadlinePassed, InputError
from mailstack.lab.running import RunningLab
from mailstack.load.ledger import Outcome
from mailstack.load.performance import LoadProgress, perform
from mailstack.load.plan import Plan
from mailstack.model import Deadline
from mailstack.protocol import imap, smtp, trust
from tests.docker.conftest import Labs
from tests.docker.test_lab import answer

pytestmark = pytest.mark.docker

MAILSTACK = str(Path(sys.executable).with_name("mailstack"))


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("load") as lab:
        yield lab


@pytest.fixture(autouse=True)
def nothing_stays(lab: RunningLab) -> Iterator[None]:
    """Check that no account, no mailbox, no queued mail and no thread is left."""
    before = set(threading.enumerate())
    yield
    assert Accounts(lab).added() == []
    assert "load-" not in lab.engine.execute(lab.service("dovecot").container, ["ls", "/srv/mail"]).stdout
    assert queues.of(lab.engine, queues.containers(lab)) == []
    assert set(threading.enumerate()) <= before


def with_mishap(lab: RunningLab, plan: Plan, *argv: str, user: str = "") -> Outcome:
    """Run a load; after the first mail has arrived, run a command in Dovecot's container. USER is the mailbox."""
    done: list[int] = []

    def live(now: LoadProgress) -> None:
        if now.delivered and not done:
            (box,) = (account.address for account in Accounts(lab).added())
            words = [word.replace("USER", box) for word in argv]
            result = lab.engine.execute(lab.service("dovecot").container, words, user=user)
            assert result.code == 0, result
            done.append(1)

    outcome = perform(lab, plan, on_progress=live)
    assert done
    return outcome


ONE = Plan(messages=20, seconds=None, rate=25.0, mailboxes=1, connections=2, patience=4.0)


def test_what_a_killed_load_left_the_next_one_removes(lab: RunningLab) -> None:
    words = (MAILSTACK, "load", "-n", lab.name, "--seconds", "60", "--mailboxes", "5")
    with subprocess.Popen(words, stdout=-3, stderr=-3) as process:
        deadline = Deadline.after(30)
        while len(Accounts(lab).added()) < 5:
            assert process.poll() is None and not deadline.passed()
            time.sleep(0.02)
        process.kill()
    assert answer("load", "-n", lab.name, "--messages", "5", "--mailboxes", "1")["delivered"] == 5
    assert Accounts(lab).added() == []


def test_of_a_load_nothing_is_lost_and_nothing_is_doubled(lab: RunningLab) -> None:
    document = answer("load", "-n", lab.name, "--messages", "200", "--mailboxes", "20")
    wrong = ("refused", "lost", "doubled", "waiting", "unseen")
    assert document["messages"] == document["delivered"] == 200
    assert [document[name] for name in wrong] == [0] * 5 and document["trouble"] == []
    assert document["connections"] == 8 and document["bytes"] == 2048
    for name in ("submission_milliseconds", "delivery_milliseconds"):
        times = [document[name][each] for each in ("p50", "p95", "p99", "max")]
        assert times[0] > 0 and times == sorted(times)
    assert document["delivery_milliseconds"]["p50"] > document["submission_milliseconds"]["p50"] / 2
    assert document["messages_per_second"]["delivered"] == pytest.approx(200 / document["seconds"], rel=0.02)


def test_a_rate_is_kept_and_the_seconds_end_it(lab: RunningLab) -> None:
    outcome = perform(lab, Plan(seconds=1.0, rate=20.0, connections=2, mailboxes=2))
    assert 0 < len(outcome.accepted) <= 20 and verdict(outcome) is None  # without a rate: hundreds
    assert outcome.accepted[-1].started - outcome.accepted[0].started <= 1.0


def test_mails_that_are_too_large_are_refused_and_counted_with_the_reply(lab: RunningLab) -> None:
    outcome = perform(lab, Plan(messages=100, size=11 * 1024**2, connections=2, mailboxes=2))
    ((reply, count),) = outcome.refused.items()
    assert reply.startswith("552 5.3.4") and count == 6  # each connection gives up after three
    assert outcome.accepted == () and isinstance(verdict(outcome), CheckFailed)


def test_a_mail_that_disappears_is_seen_to_be_lost(lab: RunningLab) -> None:
    outcome = with_mishap(lab, ONE, "doveadm", "expunge", "-u", "USER", "mailbox", "INBOX", "1")
    assert len(outcome.lost) == 1 and outcome.delivered == 19 and outcome.doubled == {}
    assert outcome.journeys[outcome.lost[0]].startswith("delivered to load-")
    assert isinstance(verdict(outcome), CheckFailed)


def test_a_mail_that_is_there_twice_is_seen_to_be_doubled(lab: RunningLab) -> None:
    outcome = with_mishap(lab, ONE, "doveadm", "copy", "-u", "USER", "INBOX", "mailbox", "INBOX", "1")
    assert list(outcome.doubled.values()) == [2] and outcome.delivered == 20 and outcome.lost == ()
    assert isinstance(verdict(outcome), CheckFailed)


def test_connections_that_are_refused_are_told(lab: RunningLab) -> None:
    submission = lab.endpoints["submission"]
    with contextlib.ExitStack() as others:  # smtpd_client_connection_count_limit: 50
        for _ in range(45):
            other = others.enter_context(socket.create_connection((submission.host, submission.port)))
            assert other.recv(100).startswith(b"220")
        with pytest.raises(InputError, match=r"Postfix accepts only 5 of the 8 requested connections: 421 4\.7\.0"):
            perform(lab, Plan(messages=60, connections=8, mailboxes=1))


def test_who_interrupts_it_gets_what_was_measured(lab: RunningLab) -> None:
    words = [MAILSTACK, "load", "-n", lab.name, "--seconds", "60", "--rate", "50", "--mailboxes", "2", "--json"]
    since = time.time()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        dovecot = {"dovecot": lab.service("dovecot").container}
        for line in lab.engine.follow(dovecot, since=since, deadline=Deadline.after(20)):
            assert line, "no mail of the load arrived"
            if "lmtp(load-" in line[1]:
                break
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    document = json.loads(out)
    assert document["interrupted"] and 0 < document["messages"] < 3000
    assert document["messages"] == document["delivered"] + document["waiting"]
    assert error == "mailstack: interrupted: what was sent until then is counted\n"


@pytest.mark.parametrize("together", [True, False], ids=["pipelining", "one-by-one"])
def test_after_a_refusal_the_connection_takes_the_next_mail(lab: RunningLab, together: bool) -> None:
    context = trust.tls_context(lab.ca_file)
    dial, user = smtp.dial_to(lab.endpoints["submission"]), "alice@example.com"
    with smtp.Smtp(dial, name="localhost", tls="starttls", context=context) as session:
        session.login(user, lab.password(user).reveal())
        if not together:
            del session.esmtp_features["pipelining"]
        assert session.transaction("bob@example.com", user, (b"\r\n.\r\n",), 5)[0] == 553  # not alice's
        assert session.transaction(user, "nobody@example.com", (b"\r\n.\r\n",), 5)[0] == 550
        data = (b"Message-ID: <", str(together).encode(), b"@example.com>\r\n\r\nHello\r\n", b".\r\n")
        code, reply = session.transaction(user, user, data, 50)
    assert (code, reply[:5]) == (250, "2.0.0")
    with imap.mailbox(lab.endpoints["imaps"], context, user, lab.password(user)) as box:
        imap.wait_for(box, f"<{together}@example.com>", Deadline.after(15))


def test_of_several_accounts_all_are_added_or_none(lab: RunningLab) -> None:
    with Accounts(lab) as accounts:
        with pytest.raises(InputError, match="already"):
            accounts.add_several(["new@example.com", "bob@example.com"])
        assert accounts.added() == []


def test_mails_that_wait_in_the_queue_are_told_with_their_reason(lab: RunningLab) -> None:
    dovecot = lab.service("dovecot").container

    def progress(text: str) -> None:
        if text == "opening the connections":
            assert lab.engine.execute(dovecot, ["doveadm", "service", "stop", "lmtp"]).code == 0

    try:
        outcome = perform(lab, ONE, progress)
    finally:
        lab.engine.execute(dovecot, ["doveadm", "reload"])
    assert any("Connection refused" in reason for reason in outcome.waiting), outcome.waiting
    assert sum(outcome.waiting.values()) == 20 and outcome.delivered == 0 and outcome.lost == ()
    assert isinstance(verdict(outcome), DeadlinePassed)
