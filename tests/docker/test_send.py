"""A command that sends a mail reports the result for each recipient, from the logs and the mailboxes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mailstack.actions import queues
from mailstack.actions.queues import ACTIONS
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.model import Deadline
from mailstack.protocol import imap, smtp, trust
from tests.docker.conftest import Labs
from tests.docker.test_lab import answer, documented

pytestmark = pytest.mark.docker

MAILSTACK = str(Path(sys.executable).with_name("mailstack"))
STUDENT, NOBODY, OUTSIDE = "student@example.com", "nobody@example.com", "somebody@outside.example"
FULL = "full@example.com"
OVERLAY = f"""
x-mailstack:
  accounts:
    {FULL}: {{quota: 1K}}
"""


@pytest.fixture(scope="module")
def lab(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    overlay = tmp_path_factory.mktemp("send") / "more.yaml"
    overlay.write_text(OVERLAY)
    with labs.one("send", [overlay]) as running:
        yield running


def run(lab: RunningLab, command: str, *words: str, timeout: str = "60s") -> subprocess.CompletedProcess[str]:
    argv = [MAILSTACK, command, "-n", lab.name, *words, "--timeout", timeout]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def to(*addresses: str) -> list[str]:
    return [word for address in addresses for word in ("--to", address)]


def fill(lab: RunningLab) -> None:
    """Fill the mailbox that has the small quota: a first mail always fits."""
    context = trust.tls_context(lab.ca_file)
    with imap.mailbox(lab.endpoints["imaps"], context, FULL, lab.password(FULL)) as box:
        if not box.uids():
            assert run(lab, "send", "--from", STUDENT, *to(FULL), "--body", "x" * 20_000).returncode == 0


@pytest.mark.parametrize(
    ("recipients", "says"),
    [
        ([NOBODY], ["bounced in sender for nobody@example.com: 550 5.1.1"]),
        ([OUTSIDE], ["bounced in sender for somebody@outside.example: 550 5.4.4"]),
        (["bob@example.com", NOBODY, OUTSIDE], ["5.1.1", "5.4.4", "delivered to bob@example.com"]),
        ([FULL], ["full@example.com", "Quota exceeded"]),
    ],
    ids=["unknown", "outside", "mixed", "a full mailbox"],
)
def test_a_mail_from_the_sender_that_bounces_is_no_success(
    lab: RunningLab, recipients: Sequence[str], says: Sequence[str]
) -> None:
    if FULL in recipients:
        fill(lab)
    result = run(lab, "send", "--via", "sender", "--from", STUDENT, *to(*recipients))
    assert result.returncode == 1, result.stdout
    assert [each for each in says if each not in result.stderr] == [], result.stderr
    assert "student@example.com was notified" in result.stderr
    assert "mailstack trace" in result.stderr


def test_one_that_everybody_has_got_is_a_success_and_a_document(lab: RunningLab) -> None:
    sent = answer(
        "send", "-n", lab.name, "--via", "sender", "--from", STUDENT, *to("team@example.com", "carol@example.org")
    )
    assert sorted(sent["arrived"]) == ["alice@example.com", "bob@example.com", "carol@example.org"]


def test_the_document_of_one_that_bounces_names_it_and_where_it_has_arrived(lab: RunningLab) -> None:
    sent = answer("send", "-n", lab.name, "--via", "sender", "--from", STUDENT, *to("bob@example.com", NOBODY), code=1)
    assert set(sent) == set(documented("send"))
    assert list(sent["arrived"]) == ["bob@example.com"]


def test_one_that_is_taken_by_submission_and_returned_later_is_no_success(lab: RunningLab) -> None:
    fill(lab)
    result = run(lab, "send", "--from", STUDENT, *to(FULL))
    assert result.returncode == 1, result.stdout
    assert "bounced in postfix for full@example.com" in result.stderr
    assert "Quota exceeded" in result.stderr


def test_an_answer_to_nobody_is_no_success(lab: RunningLab) -> None:
    message = draft.new_message(sender=OUTSIDE, to=["bob@example.com"], subject="from outside", body="Answer me.")
    with smtp.Smtp(smtp.dial_to(lab.endpoints["smtp"]), name="localhost") as session:
        session.send_message(message, OUTSIDE, ["bob@example.com"])
    context, password = trust.tls_context(lab.ca_file), lab.password("bob@example.com")
    with imap.mailbox(lab.endpoints["imaps"], context, "bob@example.com", password) as box:
        imap.wait_for(box, str(message["Message-ID"]), Deadline.after(30))
    result = run(lab, "reply", "bob@example.com", "--body", "Here you are.")
    assert result.returncode == 1
    assert "5.4.4" in result.stderr


@pytest.mark.parametrize("via", ["sender", "submission"])
def test_of_one_that_waits_the_reason_is_said(lab: RunningLab, via: str) -> None:
    postfix = {"postfix": lab.service("postfix").container}

    def postfix_does(*words: str) -> None:
        for argv in (words, ("postfix", "reload")):
            assert lab.engine.execute(postfix["postfix"], argv).code == 0

    postfix_does("postconf", "-e", "defer_transports = lmtp")
    try:
        result = run(lab, "send", "--via", via, "--from", STUDENT, *to("bob@example.com"), timeout="8s")
        assert result.returncode == 1
        assert "did not reach the mailbox of bob@example.com within 8 s" in result.stderr
        assert "waiting in postfix for bob@example.com" in result.stderr
    finally:
        postfix_does("postconf", "-X", "defer_transports")
        queues.act(lab.engine, postfix, ACTIONS["delete"], queues.of(lab.engine, postfix))
