"""`trace --last` is the user's last mail: no notice, and none that mailstack sent to itself."""

from __future__ import annotations

import pytest

from mailstack.actions import tracing
from mailstack.lab.changes import PROOF_MARK
from mailstack.load.plan import Mails
from mailstack.message import draft
from mailstack.trace import own
from mailstack.trace.journey import Journey
from tests.unit.test_trace_ends import REFUSED_BY_A_RULE


def mail(number: int, message_id: str, sender: str = "student@example.com") -> str:
    """Return the lines of a mail that a host received at a second of the hour and passed on to a program."""
    queue_id, at = f"AAAA{number:04X}", f"Nov 23 09:{number // 60:02}:{number % 60:02} mx postfix"
    return (
        f"{at}/smtpd[1]: {queue_id}: client=a.example[192.0.2.1]\n"
        f"{at}/cleanup[2]: {queue_id}: message-id=<{message_id}>\n"
        f"{at}/qmgr[3]: {queue_id}: from=<{sender}>, size=1, nrcpt=1 (queue active)\n"
        f"{at}/local[4]: {queue_id}: to=<b@b.example>, relay=local, delay=1, delays=0/0/0/1, dsn=2.0.0, "
        "status=sent (ok)\n"
        f"{at}/qmgr[3]: {queue_id}: removed\n"
    )


def refused(number: int, helo: str) -> str:
    """Return the line of a mail that was refused before it had a queue id."""
    return (
        f"Nov 23 09:{number // 60:02}:{number % 60:02} mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[192.0.2.1]: "
        f"550 5.1.1 <no@b.example>: Recipient address rejected; from=<a@a.example> to=<no@b.example> proto=ESMTP "
        f"helo=<{helo}>\n"
    )


def last(log: str) -> Journey:
    """Return the journey that `trace --last` shows of a log."""
    (journey,) = tracing.last_mail(lambda: (("", line) for line in log.splitlines())).journeys
    return journey


@pytest.mark.parametrize(
    "message_id",
    [
        draft.new_id("a@example.com", "check-0123456789ab").strip("<>"),
        draft.new_id("a@example.com", "first.experiment-0123456789ab").strip("<>"),
        draft.new_id("a@example.com", PROOF_MARK).strip("<>"),
        Mails("0123abcd", ["b@example.com"], 2048).mail(7, "a@example.com").message_id.strip("<>"),
    ],
    ids=["check", "experiment", "proof", "load"],
)
def test_a_mail_that_mailstack_sent_to_itself_is_not_the_last(message_id: str) -> None:
    assert own.mark_of(message_id)
    assert last(mail(1, "mine@a.example") + mail(2, message_id)).message_id == "mine@a.example"


def test_a_mail_of_the_user_has_no_mark_whatever_its_subject_or_address() -> None:
    for message_id in ("check-0123456789ab@example.com", "1.2.check-up@example.com", "1.proof-of-lab.2@example.com"):
        assert not own.mark_of(message_id)


def test_a_hundred_mails_of_a_check_do_not_hide_the_user_s_last_mail() -> None:
    checks = "".join(mail(number, f"1.{number}.check-0123456789ab@a.example") for number in range(2, 102))
    assert last(mail(1, "mine@a.example") + checks).message_id == "mine@a.example"


def test_a_notice_is_not_the_last_mail_even_if_nothing_links_it_to_the_mail_it_is_about() -> None:
    assert last(mail(1, "mine@a.example") + mail(2, "notice@mx", sender="")).message_id == "mine@a.example"


def test_a_mail_that_was_refused_in_the_dialogue_is_the_last_one_if_it_was() -> None:
    journey = last(mail(1, "mine@a.example") + refused(2, "laptop.example"))
    assert journey.status == "rejected" and journey.sender == "a@a.example"


def test_a_refusal_that_a_check_provoked_is_not_the_last_mail() -> None:
    assert last(mail(1, "mine@a.example") + refused(2, "client.test")).message_id == "mine@a.example"


def test_a_refusal_that_a_mail_of_a_check_met_at_the_next_hop_is_not_the_last_mail() -> None:
    log = """\
Nov 23 09:00:02 sender postfix/pickup[1]: BBBBB2: uid=1000 from=<student@example.com>
Nov 23 09:00:02 sender postfix/cleanup[2]: BBBBB2: message-id=<1.2.check-0123456789ab@example.com>
Nov 23 09:00:02 sender postfix/qmgr[3]: BBBBB2: from=<student@example.com>, size=1, nrcpt=1 (queue active)
Nov 23 09:00:02 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from a[192.0.2.1]: 553 5.7.1 <student@example.com>: Sender \
address rejected: not logged in; from=<student@example.com> to=<b@b.example> proto=ESMTP helo=<sender.example.com>
Nov 23 09:00:02 sender postfix/smtp[4]: BBBBB2: to=<b@b.example>, relay=mx[192.0.2.2]:587, delay=1, delays=0/0/0/1, \
dsn=5.7.1, status=bounced (host mx[192.0.2.2] said: 553 5.7.1 <student@example.com>: Sender address rejected: not \
logged in (in reply to RCPT TO command))
Nov 23 09:00:02 sender postfix/qmgr[3]: BBBBB2: removed
"""
    assert last(mail(1, "mine@a.example") + log).message_id == "mine@a.example"


def test_a_mail_without_a_name_that_was_given_up_while_a_check_ran_is_the_check_s() -> None:
    marked = "1.2.check-0123456789ab@a.example"
    nameless = (
        "Nov 23 09:00:03 mx postfix/smtpd[1]: CCCCC3: client=a.example[192.0.2.1]\n"
        "Nov 23 09:00:03 mx postfix/cleanup[2]: CCCCC3: removed (canceled)\n"
    )
    check = mail(2, marked) + nameless + mail(4, marked.replace("1.", "2."))
    assert last(mail(1, "mine@a.example") + check).message_id == "mine@a.example"
    assert last(mail(1, "mine@a.example") + nameless).status == "aborted"


def test_a_mail_that_a_rule_refused_is_the_last_one_and_not_its_notice() -> None:
    assert last(REFUSED_BY_A_RULE).message_id == "20261130044546.C334E1B25CB@sender.example.com"


def test_where_there_are_only_mails_of_mailstack_the_last_of_them_is_shown() -> None:
    assert last(mail(1, "1.2.proof-of-lab@a.example") + mail(2, "n@mx", sender="")).message_id.startswith("1.2.proof")
