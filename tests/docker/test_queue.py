"""Mails that wait because Dovecot or Postfix is stopped: listed, held, deleted, flushed and waited for."""

from __future__ import annotations

import contextlib
import smtplib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from mailstack.actions import queue_watch, queues, sending
from mailstack.actions.queues import ACTIONS, CONDITIONS, Entry
from mailstack.engine.engine import Engine
from mailstack.lab import up as life
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.model import Deadline
from mailstack.protocol import imap, trust
from tests import engines, forked
from tests.docker.conftest import Labs
from tests.docker.test_lab import answer, documented, mailstack, shape

pytestmark = pytest.mark.docker

SECONDS = 20.0
STRANGER = "somebody@example.net"  # on port 25, where nobody needs a password
STUDENT = "student@example.com"

Waited = Callable[[str, Callable[[], object]], list[Entry]]

OVERLAY = """
x-mailstack:
  settings:
    postfix:
      header_checks: "regexp:{ {/^Subject: Hold me/ HOLD} }"
"""


@pytest.fixture(scope="module")
def running(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    """Return a lab whose Dovecot is stopped."""
    overlay = tmp_path_factory.mktemp("queue") / "hold.yaml"
    overlay.write_text(OVERLAY)
    with labs.one("queue", [overlay]) as lab:
        lab.engine.stop(lab.service("dovecot").container)
        yield lab


@pytest.fixture
def lab(running: RunningLab) -> Iterator[RunningLab]:
    """Return the lab with empty queues."""
    where = queues.containers(running)
    assert queues.of(running.engine, where) == []
    yield running
    queues.act(running.engine, where, ACTIONS["delete"], queues.of(running.engine, where))


def message_id(subject: str) -> str:
    """Return the Message-ID of the mail with this subject."""
    return f"<{subject.replace(' ', '-').lower()}@example.net>"


def submit(lab: RunningLab, subject: str = "Wait") -> str:
    """Send Postfix a mail for bob, as another server would; return its queue id."""
    message = draft.new_message(sender=STRANGER, to=["bob@example.com"], subject=subject, body="Wait.\n")
    message.replace_header("Message-ID", message_id(subject))
    with smtplib.SMTP(lab.endpoints["smtp"].host, lab.endpoints["smtp"].port, "mx.example.net") as session:
        session.ehlo()
        session.mail(STRANGER)
        assert session.rcpt("bob@example.com")[0] == 250
        code, reply = session.data(message.as_bytes())
    assert code == 250, reply
    return reply.decode().rpartition(" ")[2]


def standing(lab: RunningLab) -> dict[str, Entry]:
    """Return the mails in Postfix's queue by queue id."""
    found = queues.entries(lab.engine, lab.service("postfix").container, "postfix")
    return {entry.queue_id: entry for entry in found}


def until(met: Callable[[], bool]) -> None:
    """Poll for a condition without an event: qmgr(8) moves a deferred mail's file after it has written the log line."""
    deadline = Deadline.after(SECONDS)
    while not met():
        assert not deadline.passed()


def put_off(lab: RunningLab, *subjects: str) -> list[str]:
    """Put mails into Postfix's deferred queue; return their queue ids."""
    ids = [submit(lab, subject) for subject in subjects]
    until(lambda: [entry.name for entry in standing(lab).values()] == ["deferred"] * len(ids))
    return ids


@contextlib.contextmanager
def dovecot(lab: RunningLab) -> Iterator[None]:
    """Start Dovecot and all other stopped services, within `with`."""
    life.up(engines.here(), life.Request(lab.name, tuple(map(Path, lab.state.files[1:]))), lambda _: None)
    try:
        yield
    finally:
        lab.engine.stop(lab.service("dovecot").container)


def copies(lab: RunningLab, subject: str, *, wait: bool = True) -> int:
    """Return how many copies of a mail are in bob's mailbox, after the first has arrived."""
    context, bob = trust.tls_context(lab.ca_file), "bob@example.com"
    with imap.mailbox(lab.endpoints["imaps"], context, bob, lab.password(bob)) as box:
        if wait:
            imap.wait_for(box, message_id(subject), Deadline.after(SECONDS))
        return len(imap.find(box, message_id(subject)))


def failing(*words: str, code: int) -> str:
    """Return the messages of a command that ends with `code`."""
    result = forked.run_text(words)
    assert result.returncode == code, f"{words}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr
    return result.stderr


def test_an_empty_queue_says_so(lab: RunningLab) -> None:
    assert mailstack("queue", "-n", lab.name) == "no mail waits in sender and postfix\n"
    assert answer("queue", "-n", lab.name, "postfix", "list")["mails"] == []
    assert mailstack("queue", "-n", lab.name, "flush") == "no mail to flush\n"
    assert answer("queue", "-n", lab.name, "wait")["met"]


def test_a_mail_that_cannot_be_delivered_is_listed_with_its_reason_and_its_next_try(lab: RunningLab) -> None:
    (queue_id,) = put_off(lab, "Listed")
    document = answer("queue", "-n", lab.name)
    assert shape(document, documented("queue")) == []
    (found,) = document["mails"]
    assert (found["service"], found["queue"], found["queue_id"]) == ("postfix", "deferred", queue_id)
    assert (found["from"], found["recipients"][0]["address"]) == (STRANGER, "bob@example.com")
    assert "/run/sockets/lmtp" in found["recipients"][0]["reason"]
    path = f"/var/spool/postfix/deferred/{queue_id[0]}/{queue_id}"
    time_of_change = lab.engine.execute(lab.service("postfix").container, ["stat", "-c", "%Y", path]).stdout
    assert datetime.fromisoformat(found["next_try"]).timestamp() == int(time_of_change)
    assert 20 < found["next_try_seconds"] <= 30  # minimal_backoff_time in stack/postfix/main.cf
    shown = mailstack("queue", "-n", lab.name, "postfix")
    assert all(len(line) <= 80 for line in shown.splitlines() if "mailstack up" not in line)  # as long as its paths
    assert queue_id in shown and " in 2" in shown
    assert f"{STRANGER} → bob@example.com" in shown and "/run/sockets/lmtp" in shown


def test_what_is_held_stays_what_is_deleted_goes_and_the_rest_is_delivered_by_a_flush(lab: RunningLab) -> None:
    held, deleted, other = put_off(lab, "Held", "Deleted", "Other")
    name, ours = lab.name, [{"service": "postfix", "queue_id": held}]
    document = answer("queue", "-n", name, "postfix", "hold", held)
    assert document == {"lab": name, "action": "hold", "done": ours, "missed": []}
    assert set(document) == set(documented("queue", 1))
    assert mailstack("queue", "-n", name, "delete", deleted) == f"{deleted} in postfix is deleted\n"
    assert {queue_id: entry.name for queue_id, entry in standing(lab).items()} == {held: "hold", other: "deferred"}
    assert standing(lab)[held].recipients[0].reason and standing(lab)[held].next_try is None
    assert "is on hold" in failing("queue", "-n", name, "flush", held, code=2)
    with dovecot(lab):
        mailstack("queue", "-n", name, "flush")
        assert copies(lab, "Other") == 1
        mailstack("queue", "-n", name, "release", "--all")
        assert mailstack("queue", "-n", name, "flush", held) == f"{held} in postfix is tried again now\n"
        assert mailstack("queue", "-n", name, "wait") == "no mail waits in sender and postfix\n"
        assert [copies(lab, "Held"), copies(lab, "Other"), copies(lab, "Deleted", wait=False)] == [1, 1, 0]


def test_a_flush_of_one_mail_leaves_the_others_for_their_next_try(lab: RunningLab) -> None:
    one, two = put_off(lab, "One", "Two")
    document = answer("queue", "-n", lab.name, "flush", one)
    assert document["done"] == [{"service": "postfix", "queue_id": one}]
    before = standing(lab)[two].next_try
    until(lambda: standing(lab)[one].name == "deferred")
    after = standing(lab)
    assert before == after[two].next_try and before is not None
    assert (after[one].next_try or 0) >= before


def test_a_mail_that_has_gone_before_it_is_held_is_missed_and_no_other_is_touched(lab: RunningLab) -> None:
    one, two = put_off(lab, "One", "Two")
    where = queues.containers(lab, "postfix")
    stale = standing(lab)
    assert queues.act(lab.engine, where, ACTIONS["delete"], [stale[one]]) == [stale[one]]
    assert queues.act(lab.engine, where, ACTIONS["hold"], [stale[one], stale[two]]) == [stale[two]]


def test_an_id_that_is_not_there_is_refused_with_those_that_are(lab: RunningLab) -> None:
    (queue_id,) = put_off(lab, "Stays")
    for action, wanted in (("hold", "ABCDEF012"), ("release", "../x"), ("delete", "ALL"), ("flush", "-")):
        told = failing("queue", "-n", lab.name, action, wanted, code=2)
        assert repr(wanted) in told and f"queue ids: {queue_id} (postfix)" in told
    assert [entry.name for entry in standing(lab).values()] == ["deferred"]


@pytest.fixture
def waited(lab: RunningLab, monkeypatch: pytest.MonkeyPatch) -> Waited:
    """Return a function that waits for a condition; `cause` makes it true after the queue was read in vain."""
    look = queues.of

    def wait(condition: str, cause: Callable[[], object]) -> list[Entry]:
        looked = threading.Event()

        def of(engine: Engine, where: Mapping[str, str]) -> list[Entry]:
            found = look(engine, where)
            looked.set()
            return found

        monkeypatch.setattr(queues, "of", of)
        where = queues.containers(lab, "postfix")
        assert not CONDITIONS[condition].met(look(lab.engine, where))
        deadline = Deadline.after(SECONDS)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(queues.wait, lab.engine, where, CONDITIONS[condition], deadline)
            assert looked.wait(SECONDS)
            cause()
            met, found = waiting.result()
        assert met and not deadline.passed()
        return found

    return wait


def test_a_wait_ends_within_a_second_of_what_it_waits_for(lab: RunningLab, waited: Waited) -> None:
    where = queues.containers(lab, "postfix")

    def seconds(line: str, condition: str, cause: Callable[[], object]) -> float:
        """Return the seconds from the log line to the end of the wait."""
        begun = time.time()
        waited(condition, cause)
        over = time.time()
        lines = lab.engine.logs(where["postfix"], since=begun, timestamps=True).splitlines()
        logged = next(each.split(" ")[0] for each in lines if line in each)
        return over - datetime.fromisoformat(logged[:26] + "+00:00").timestamp()

    def act(action: str) -> None:
        assert queues.act(lab.engine, where, ACTIONS[action], queues.of(lab.engine, where))

    assert 0 < seconds(" status=deferred ", "deferred", lambda: submit(lab, "Refused")) < 1
    assert 0 < seconds(": placed on hold", "held", lambda: act("hold")) < 1
    assert 0 < seconds(": removed", "empty", lambda: act("delete")) < 1


def test_a_mail_that_postfix_itself_puts_on_hold_is_waited_for(lab: RunningLab, waited: Waited) -> None:
    ids: list[str] = []
    found = waited("held", lambda: ids.append(submit(lab, "Hold me")))
    assert [(entry.queue_id, entry.name) for entry in found] == [(ids[0], "hold")]


def test_a_wait_outlives_a_restart_of_postfix(lab: RunningLab, waited: Waited) -> None:
    put_off(lab, "Restarted")
    where = queues.containers(lab, "postfix")

    def restarted() -> None:
        lab.engine.stop(where["postfix"])
        lab.engine.start(where["postfix"])
        assert queues.act(lab.engine, where, ACTIONS["delete"], queues.of(lab.engine, where))

    assert waited("empty", restarted) == []


def test_a_log_is_followed_over_restarts_without_a_gap_and_nothing_twice(lab: RunningLab) -> None:
    postfix = lab.service("postfix").container
    said = len(lab.engine.logs(postfix).splitlines())
    deadline = Deadline.after(SECONDS)
    with contextlib.closing(lab.engine.follow({"postfix": postfix}, deadline=deadline)) as lines:
        heard = [next(lines) for _ in range(said)]
        for _ in range(2):
            lab.engine.stop(postfix)  # of which Postfix does not always get to log the end
            lab.engine.start(postfix)
            heard.append(next(lines))
            while "daemon started" not in str(heard[-1]):
                heard.append(next(lines))
    assert heard == [("postfix", line) for line in lab.engine.logs(postfix, timestamps=True).splitlines()]


def test_looks_see_what_stands_in_the_queue_also_when_a_container_was_started_again(lab: RunningLab) -> None:
    where = queues.containers(lab)
    with queue_watch.QueueWatch(lab) as looking:
        assert looking.entries() == []
        (queue_id,) = put_off(lab, "Greetings")
        found = looking.entries()
        assert found == queues.of(lab.engine, where) and [entry.queue_id for entry in found] == [queue_id]
        assert b"\nSubject: Greetings\n" in looking.mail(found[0])
        lab.engine.stop(where["postfix"])
        assert looking.entries() == []  # of the sender, which runs
        lab.engine.start(where["postfix"])
        assert [entry.queue_id for entry in looking.entries()] == [queue_id]
        lab.engine.stop(where["sender"])
        lab.engine.start(where["sender"])
        assert [entry.queue_id for entry in looking.entries()] == [queue_id]
        queues.act(lab.engine, where, ACTIONS["delete"], found)
        assert looking.mail(found[0]) == b""


def test_a_deadline_that_passes_is_told_with_what_stands_in_the_queue(lab: RunningLab) -> None:
    (queue_id,) = put_off(lab, "Stays")
    begun = time.monotonic()
    assert queue_id in mailstack("queue", "-n", lab.name, "wait", "--timeout", "1s", code=4)
    assert 1 <= time.monotonic() - begun < 5
    document = answer("queue", "-n", lab.name, "wait", "--until", "held", "--timeout", "1s", code=4)
    assert (document["until"], document["met"], len(document["mails"])) == ("held", False, 1)
    assert "no mail is on hold after 1 s" in failing(
        "queue", "-n", lab.name, "wait", "--until", "held", "--timeout", "1s", code=4
    )


def test_with_postfix_stopped_mails_wait_in_the_sender_and_leave_it_when_it_is_back(lab: RunningLab) -> None:
    lab.engine.stop(lab.service("postfix").container)
    letter = sending.letter(lab.definition(), STUDENT, ["bob@example.com"], "Far", "Far.", [])
    sending.from_sender(lab, letter, message_id("Far"))
    document = answer("queue", "-n", lab.name, "wait", "--until", "deferred")
    assert document["services"] == ["sender"]
    (found,) = document["mails"]
    assert (found["service"], found["from"]) == ("sender", STUDENT) and "postfix" in found["recipients"][0]["reason"]
    for words in (["postfix"], ["postfix", "flush"], ["postfix", "wait"], ["wait"]):
        told = failing("queue", "-n", lab.name, *words, code=3)
        assert "postfix of lab" in told and "not running" in told and "mailstack up" in told, words
    assert "its queue is not included" in failing("queue", "-n", lab.name, code=0)
    with dovecot(lab):
        mailstack("queue", "-n", lab.name, "sender", "flush")
        mailstack("queue", "-n", lab.name, "wait")
        assert copies(lab, "Far") == 1
