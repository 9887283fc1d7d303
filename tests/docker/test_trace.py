"""The journey of a message on a real lab: trace shows the same as the mailboxes and the queues."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mailstack.actions import sending, tracing
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.model import Deadline
from mailstack.protocol import imap, smtp, trust
from tests import forked
from tests.docker.conftest import Labs
from tests.docker.test_lab import answer, documented, mailstack, shape

pytestmark = pytest.mark.docker

FROM_SENDER = ("--via", "sender", "--from", "student@example.com", "--to", "bob@example.com")

MAILSTACK = Path(sys.executable).with_name("mailstack")


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return a lab for this module."""
    with labs.one("trace") as lab:
        yield lab


@pytest.fixture
def trace(lab: RunningLab) -> Callable[..., Any]:
    """Run `mailstack trace … --json`; return the last journey of its answer."""

    def last(*words: str, code: int = 0) -> Any:
        return answer("trace", "-n", lab.name, *words, code=code)["journeys"][-1]

    return last


@pytest.fixture
def stopped_dovecot(lab: RunningLab) -> Iterator[None]:
    """Stop Dovecot, so that the receiver is not available."""
    container = lab.service("dovecot").container
    lab.engine.stop(container)
    try:
        yield
    finally:
        start_again(lab, container)


def start_again(lab: RunningLab, dovecot: str) -> None:
    """Start Dovecot, and make Postfix reconnect to it."""
    lab.engine.start(dovecot)
    deadline = Deadline.after(20)
    while not smtp.greets(smtp.dial_to(lab.endpoints["imap"]), b"a LOGOUT\r\n"):
        assert not deadline.passed()
    lab.engine.signal(lab.service("postfix").container, "HUP")


def send(lab: RunningLab, *words: str, code: int = 0) -> str:
    """Send a mail; return its Message-ID without brackets."""
    document = answer("send", "-n", lab.name, *words, code=code)
    return str(document["message_id"]).strip("<>")


def seen_at(lab: RunningLab, address: str, sent: Callable[[], object]) -> tuple[float, list[Any]]:
    """Poll IMAP for the next mail for `address`; return when it was seen (seconds of the epoch), and the mail."""
    with imap.mailbox(lab.endpoints["imaps"], trust.tls_context(lab.ca_file), address, lab.password(address)) as box:
        known = len(box.uids())
        sender = threading.Thread(target=sent)
        sender.start()
        deadline = Deadline.after(15)
        while len(box.uids()) == known:
            assert not deadline.passed()
            box.client.noop()
        seen = time.time()
        sender.join()
        return seen, list(box.fetch(mark_seen=False, reverse=True, limit=1))


def test_the_last_journey_agrees_with_what_imap_shows(lab: RunningLab, trace: Callable[..., Any]) -> None:
    apart = []
    for _ in range(5):
        seen, (found,) = seen_at(lab, "bob@example.com", lambda: send(lab, *FROM_SENDER))
        journey = trace("--last")
        assert f"<{journey['message_id']}>" == found.headers["message-id"][0]
        assert [(r["address"], r["status"]) for r in journey["recipients"]] == [("bob@example.com", "delivered")]
        (saved,) = [event for event in journey["events"] if event["kind"] == "saved"]
        arrived = journey_moment(journey, saved["milliseconds"])
        assert abs(found.date.timestamp() - arrived) < 2  # the Date of the mail, in whole seconds
        apart.append(seen - arrived)
        with imap.mailbox(
            lab.endpoints["imaps"], trust.tls_context(lab.ca_file), "bob@example.com", lab.password("bob@example.com")
        ) as box:
            assert len(imap.find(box, f"<{journey['message_id']}>")) == 1
    # The median: this machine has other things to do than to look at a mailbox all the time.
    assert 0 <= statistics.median(apart) < 0.05, apart


def journey_moment(journey: Any, milliseconds: float) -> float:
    """Return a moment of a journey, in seconds of the epoch."""
    from datetime import datetime

    return datetime.fromisoformat(journey["submitted"]).timestamp() + milliseconds / 1000


def test_the_document_is_as_documented(lab: RunningLab) -> None:
    send(lab, "--via", "sender", "--from", "student@example.com", "--to", "team@example.com")
    document = answer("trace", "-n", lab.name, "--last")
    example = documented("trace")
    for journey in document["journeys"]:
        assert set(journey) == set(example["journeys"][0])
        for part in ("hops", "recipients", "events"):
            for each in journey[part]:
                assert set(each) == set(example["journeys"][0][part][0])
    attempt = next(event for event in document["journeys"][0]["events"] if event["kind"] == "attempt")
    assert shape(attempt, example["journeys"][0]["events"][0]) == []


def test_a_mail_from_the_sender_is_followed_over_each_hop(lab: RunningLab, trace: Callable[..., Any]) -> None:
    sent = send(lab, "--via", "sender", "--from", "student@example.com", "--to", "team@example.com")
    journey = trace(sent)
    assert journey["sentence"].startswith("delivered to alice@example.com and bob@example.com in ")
    assert journey["sentence"].endswith(" over 2 hops") and journey["missing"] == []
    assert [hop["service"] for hop in journey["hops"]] == ["sender", "postfix"]
    assert {recipient["original"] for recipient in journey["recipients"]} == {"team@example.com"}
    (accepted,) = [event for event in journey["events"] if event["kind"] == "accepted"]
    assert accepted["sasl_user"].startswith("relay-") and accepted["tls"].startswith("TLSv1.3 ")
    (out,) = [e for e in journey["events"] if e["kind"] == "attempt" and e["service"] == "sender"]
    assert out["tls"].endswith(", verified") and out["code"] == 250 and len(out["delays"]) == 4
    # The same by each of its names.
    for name in (out["queue_id"], accepted["queue_id"], f"<{sent}>"):
        assert trace(name)["message_id"] == sent


def test_a_mail_that_waits_says_why_and_when_it_is_tried_again(
    lab: RunningLab, trace: Callable[..., Any], stopped_dovecot: None
) -> None:
    sent = submit(lab, "bob@example.com")
    await_deferred(lab)
    journey = trace(sent, code=1)
    assert journey["status"] == "waiting" and "next try in" in journey["sentence"], journey["sentence"]
    assert journey["recipients"][0]["next_try"] and journey["fault"] and journey["remedy"]
    dovecot = next(service for service in lab.services() if service.name == "dovecot")
    start_again(lab, dovecot.container)
    mailstack("queue", "-n", lab.name, "postfix", "flush")
    mailstack("queue", "-n", lab.name, "postfix", "wait", "--timeout", "20s")
    journey = trace(sent)
    assert journey["status"] == "delivered"
    assert [event["status"] for event in journey["events"] if event["kind"] == "attempt"] == ["deferred", "sent"]


def submit(lab: RunningLab, to: str) -> str:
    """Submit a mail on port 25, which needs no password and so no Dovecot; return its Message-ID without brackets."""
    message = draft.new_message(sender="visitor@elsewhere.example", to=[to], subject="traced", body="…")
    with smtp.Smtp(smtp.dial_to(lab.endpoints["smtp"]), name="postfix") as session:
        assert session.send_message(message, "visitor@elsewhere.example", [to]) == {}
    return str(message["Message-ID"]).strip("<>")


def await_deferred(lab: RunningLab) -> None:
    mailstack("queue", "-n", lab.name, "postfix", "wait", "--until", "deferred", "--timeout", "20s")


def test_a_mail_on_hold_is_said_to_be(lab: RunningLab, trace: Callable[..., Any], stopped_dovecot: None) -> None:
    sent = submit(lab, "bob@example.com")
    await_deferred(lab)
    queue_id = trace(sent, code=1)["hops"][0]["queue_id"]
    mailstack("queue", "-n", lab.name, "postfix", "hold", queue_id)
    assert trace(sent, code=1)["status"] == "held"
    mailstack("queue", "-n", lab.name, "postfix", "delete", queue_id)


def test_a_mail_to_nobody_is_traced_to_its_refusal_and_its_notice(lab: RunningLab, trace: Callable[..., Any]) -> None:
    sent = send(lab, "--via", "sender", "--from", "student@example.com", "--to", "nobody@example.com", code=1)
    deadline = Deadline.after(15)
    while not (journey := trace(sent, code=1))["notices"] or journey["notices"][0]["status"] != "delivered":
        assert not deadline.passed(), journey
    assert journey["status"] == "bounced" and "550 5.1.1" in journey["sentence"]
    assert journey["fault"] == "mailbox-unknown"
    assert journey["sentence"].endswith("student@example.com was notified")
    refused = [event for event in journey["events"] if event["kind"] == "refused"]
    assert [event["service"] for event in refused] == ["postfix"]


def followed(lab: RunningLab, *query: str, until: Callable[[], object]) -> list[str]:
    """Return the output of `trace --follow` while mails are sent, until it exits on its own."""
    follower = subprocess.Popen(
        [MAILSTACK, "trace", "-n", lab.name, "--follow", "--timeout", "30s", *query],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(follower.stdout or ()))
    reader.start()
    deadline = Deadline.after(30)
    while follower.poll() is None and not deadline.passed():
        until()
    reader.join(10)
    assert follower.wait(10) == 0, "".join(lines)
    return lines


def test_followed_it_is_shown_as_it_happens_and_ends_with_the_verdict(lab: RunningLab) -> None:
    message_id = "<followed@example.com>"
    letter = sending.Letter("student@example.com", ("bob@example.com",), "followed", "…")
    sent: list[str] = []

    def once() -> None:
        if not sent:
            sent.append(message_id)
            sending.from_sender(lab, letter, message_id)

    lines = followed(lab, message_id, until=once)
    text = "".join(lines)
    assert text.count("saved mail to INBOX") == text.count("submitted locally by the user with id") == 1
    assert (
        text.index("submitted locally by the user with id")
        < text.index("accepted from")
        < text.rindex("removed from the queue")
    )
    assert "delivered to bob@example.com in" in lines[-1]


def test_without_a_name_the_next_mail_is_followed_even_when_its_first_lines_are_gone(lab: RunningLab) -> None:
    lines = followed(lab, until=lambda: send(lab, *FROM_SENDER))
    assert "delivered to bob@example.com in" in lines[-1]


def test_a_follower_s_deadline_is_said(lab: RunningLab) -> None:
    result = subprocess.run(
        [MAILSTACK, "trace", "-n", lab.name, "--follow", "--timeout", "1s"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 4 and "no message arrived" in result.stderr


def test_the_logs_of_a_lab_as_files_tell_the_same(lab: RunningLab, tmp_path: Path, trace: Callable[..., Any]) -> None:
    sent = send(lab, *FROM_SENDER)
    whole = trace(sent)
    files = []
    for service in lab.services():
        path = tmp_path / f"{service.name}.log"
        path.write_text(lab.engine.logs(service.container))  # as the servers wrote it: Postfix's times are in seconds
        files += ["--logs", str(path)]
    journey = answer("trace", *files, sent)["journeys"][0]
    assert (journey["status"], journey["message_id"]) == ("delivered", whole["message_id"])
    assert [hop["queue_id"] for hop in journey["hops"]] == [hop["queue_id"] for hop in whole["hops"]]
    assert journey["missing"] == []


def test_the_latest_messages_are_listed_in_eighty_columns(lab: RunningLab) -> None:
    send(lab, "--to", "bob@example.com")
    shown = mailstack("trace", "-n", lab.name)
    assert max(map(len, shown.splitlines())) <= 80 and "delivered to" in shown
    assert max(map(len, mailstack("trace", "-n", lab.name, "--last").splitlines()[2:-1])) <= 80


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["no such thing"], 2, "no message in the logs of lab"),
        (["--last", "x"], 2, "--last and a name exclude each other"),
        (["--follow", "--last"], 2, "can be followed"),
        (["--logs", "/nonexistent"], 2, "/nonexistent: cannot be read"),
        (["--logs", "/"], 2, "cannot be read"),
        (["--timeout", "soon"], 2, "is not a duration"),
    ],
)
def test_what_cannot_be_traced_is_said(lab: RunningLab, words: list[str], code: int, says: str) -> None:
    result = forked.run_text(["trace", "-n", lab.name, *words])
    assert result.returncode == code and says in result.stderr and "Traceback" not in result.stderr, result.stderr


def test_a_lab_s_journeys_are_for_programs_too(lab: RunningLab) -> None:
    sent = send(lab, "--to", "bob@example.com")
    (journey,) = tracing.of_lab(lab, sent)
    assert journey.arrived and json.dumps(journey.json())
