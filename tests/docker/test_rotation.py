"""Logs are limited; they are followed during rotation, and the loss of their beginning is reported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.actions import queue_watch, sending
from mailstack.lab.running import RunningLab
from mailstack.load import performance
from mailstack.load.ledger import Outcome, queue_id
from mailstack.load.plan import Plan
from mailstack.model import Deadline
from mailstack.testing import evidence
from mailstack.testing.mailbox import Mailbox
from mailstack.testing.settings import Password
from mailstack.trace import rotation
from tests import forked
from tests.docker.conftest import Labs
from tests.docker.test_lab import answer, documented

pytestmark = pytest.mark.docker

MAILSTACK = Path(sys.executable).with_name("mailstack")

# Bytes of a file. A mail takes 1,100 of Postfix's log and 550 of Dovecot's, so a load goes through four and more.
SIZES, FILES = {"postfix": 100_000, "dovecot": 50_000, "sender": 50_000}, 3
MAILS = 360
OVERLAY = "services:\n" + "".join(
    f'  {service}:\n    logging: {{driver: json-file, options: {{max-size: "{size}", max-file: "{FILES}"}}}}\n'
    for service, size in SIZES.items()
)


@pytest.fixture(scope="module")
def lab(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    """Return a lab whose logs rotate within a second of load."""
    overlay = tmp_path_factory.mktemp("rotation") / "tiny.yaml"
    overlay.write_text(OVERLAY)
    with labs.one("rotation", [overlay]) as running:
        yield running


def load(lab: RunningLab, messages: int = MAILS, rate: float = 60.0) -> Outcome:
    """Send so many mails, at so many a second."""
    return performance.perform(lab, Plan(messages=messages, seconds=None, connections=2, rate=rate, mailboxes=5))


def size_of(lab: RunningLab, service: str) -> int:
    """Return the bytes that the engine keeps of a service's log."""
    return rotation.stored_size([lab.engine.logs(lab.service(service).container, timestamps=True).encode()])


def test_every_log_has_its_limits_which_are_those_of_the_document(labs: Labs) -> None:
    text = (Path(__file__).parents[2] / "docs" / "definition.md").read_text()
    with labs.one("bounded") as lab:
        for service in lab.services():
            assert rotation.limits(*lab.engine.log_options(service.container)) == rotation.Limits(10_000_000, 5)
        document = answer("trace", "-n", lab.name)
        assert document["rotated"] == []
        assert answer("explain", "-n", lab.name)["rotated"] == []
    assert "five files of 10 MB" in text


def test_a_load_that_rotates_the_logs_is_counted_to_the_last_mail_and_the_logs_stay_bounded(lab: RunningLab) -> None:
    outcome = load(lab)
    assert (len(outcome.accepted), outcome.delivered, outcome.lost, outcome.doubled) == (MAILS, MAILS, (), {})
    assert outcome.trouble == ()
    for service in ("postfix", "dovecot"):
        assert SIZES[service] * (FILES - 1) * 0.98 <= size_of(lab, service) <= SIZES[service] * FILES + 1000


def test_every_line_is_followed_once_while_logs_rotate(lab: RunningLab) -> None:
    follower = subprocess.Popen(
        [MAILSTACK, "logs", "-n", lab.name, "--follow", "postfix"], stdout=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    begun, ended = threading.Event(), threading.Event()
    last: list[str] = []

    def read() -> None:
        for line in follower.stdout or ():
            lines.append(line)
            begun.set()
            if last and f"{last[0]}: removed" in line:
                ended.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert begun.wait(30)
        posted = load(lab).accepted
        last.append(queue_id(posted[-1].reply))
        if not any(f"{last[0]}: removed" in line for line in lines):
            assert ended.wait(30)
    finally:
        follower.terminate()
        follower.wait(10)
    removed = Counter(re.findall(r"\]: (\w+): removed", "".join(lines)))
    assert {each: removed[each] for each in map(queue_id, (mail.reply for mail in posted))} == {
        queue_id(mail.reply): 1 for mail in posted
    }
    assert [line for line, count in Counter(lines).items() if count > 1 and ": removed" in line] == []


def test_a_mail_is_followed_and_a_queue_waited_for_while_logs_rotate(lab: RunningLab) -> None:
    flood = threading.Thread(target=load, args=(lab,), kwargs={"rate": 20.0})
    flood.start()
    message_id = "<in-the-flood@example.com>"
    follower = subprocess.Popen(
        [MAILSTACK, "trace", "-n", lab.name, "--follow", "--json", "--timeout", "60s", message_id],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        letter = sending.Letter("student@example.com", ("bob@example.com",), "followed", "…")
        sending.from_sender(lab, letter, message_id)
        (journey,) = json.loads(follower.communicate(timeout=90)[0])["journeys"]
        assert journey["status"] == "delivered"
        assert [event["kind"] for event in journey["events"]].count("saved") == 1
    finally:
        flood.join()
    assert answer("queue", "-n", lab.name, "wait", "--timeout", "30s")["met"]


def test_what_has_been_rotated_away_is_said_and_only_then(lab: RunningLab) -> None:
    def trace(*words: str) -> subprocess.CompletedProcess[str]:
        return forked.run_text(["trace", "-n", lab.name, *words])

    sent = answer("send", "-n", lab.name, "--via", "sender", "--from", "student@example.com")["message_id"]
    whole = trace(sent)
    assert whole.returncode == 0, whole.stderr
    assert "rotated away" not in whole.stdout + whole.stderr  # it is all there
    load(lab)
    rotated = {each["service"] for each in answer("trace", "-n", lab.name)["rotated"]}
    assert rotated == {"postfix", "dovecot"}  # the sender has had a mail or two
    half = trace(sent)
    assert re.search(r"not in the logs: everything about \w+, the next hop", half.stdout)
    assert re.search(r"the log of postfix begins at 20\d\d-.*: older lines have been rotated away", half.stdout)
    nothing = trace("nobody-has-this-in-a-line")
    assert nothing.returncode == 2
    assert "the log of dovecot begins at" in nothing.stderr
    assert "the log of sender" not in half.stdout + nothing.stderr
    assert {each["service"] for each in answer("explain", "-n", lab.name)["rotated"]} == rotated
    assert set(documented("trace")["rotated"][0]) == {"service", "begins"}


def test_a_log_is_followed_from_its_past_on_while_it_rotates(lab: RunningLab) -> None:
    container = lab.service("dovecot").container

    def flood() -> None:
        load(lab, 150)
        lab.engine.signal(container, "SIGHUP")  # which it logs

    thread = threading.Thread(target=flood)
    thread.start()
    times: list[str] = []
    for found in lab.engine.follow({"dovecot": container}, deadline=Deadline.after(90)):
        assert found is not None, "the last line did not come"
        times.append(found[1].partition(" ")[0])
        if "SIGHUP" in found[1]:
            break
    thread.join()
    assert len(set(times)) == len(times)
    assert times == sorted(times)
    kept = [line.partition(" ")[0] for line in lab.engine.logs(container, timestamps=True).splitlines()]
    assert [each for each in kept if each <= times[-1] and each not in times] == []


def test_the_report_of_a_failed_test_says_where_a_log_begins(lab: RunningLab) -> None:
    address = "alice@example.com"
    with queue_watch.QueueWatch(lab) as looking:
        mailbox = Mailbox(lab, address, Password(lab.password(address).reveal()), looking, 1.0)

        def report() -> str:
            return "\n".join(text for _, text in evidence.sections(mailbox))

        assert "rotated away" not in report()  # nothing that the test could have caused
        load(lab)
        assert "the log of postfix begins at" in report()
