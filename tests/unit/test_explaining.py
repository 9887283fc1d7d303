"""`explain` is about the user's last mail; older failures come with --all, and those of checks not at all."""

from __future__ import annotations

from mailstack.actions import explaining
from mailstack.actions.explaining import Explanation
from tests.unit.test_trace_ends import CLIENT_GONE, TOO_LARGE
from tests.unit.test_trace_own import mail, refused

# Of two mails of the user, as logged in a lab; the relay host's port was refused, then its name was misspelt.
REFUSED_PORT = """\
2026-11-30T04:44:50.528Z Nov 30 04:44:50 sender postfix/pickup[150]: 7C1ED1B2058: uid=1000 from=<student@example.com>
2026-11-30T04:44:50.529Z Nov 30 04:44:50 sender postfix/cleanup[170]: 7C1ED1B2058: message-id=<one@sender.example.com>
2026-11-30T04:44:50.530Z Nov 30 04:44:50 sender postfix/qmgr[151]: 7C1ED1B2058: from=<student@example.com>, size=330, nrcpt=1 (queue active)
2026-11-30T04:44:50.590Z Nov 30 04:44:50 sender postfix/smtp[176]: connect to postfix[10.213.229.163]:588: Connection refused
2026-11-30T04:44:50.607Z Nov 30 04:44:50 sender postfix/smtp[176]: 7C1ED1B2058: to=<bob@example.com>, relay=none, delay=0.1, delays=0.04/0.06/0/0, dsn=4.4.1, status=deferred (connect to postfix[10.213.229.163]:588: Connection refused)
"""  # noqa: E501
MISSPELT = """\
2026-11-30T04:45:04.312Z Nov 30 04:45:04 sender postfix/pickup[250]: 4DA7B1B20B0: uid=1000 from=<student@example.com>
2026-11-30T04:45:04.316Z Nov 30 04:45:04 sender postfix/cleanup[260]: 4DA7B1B20B0: message-id=<two@sender.example.com>
2026-11-30T04:45:04.317Z Nov 30 04:45:04 sender postfix/qmgr[251]: 4DA7B1B20B0: from=<student@example.com>, size=330, nrcpt=1 (queue active)
2026-11-30T04:45:05.417Z Nov 30 04:45:05 sender postfix/smtp[271]: 4DA7B1B20B0: to=<bob@example.com>, relay=none, delay=1.1, delays=0.04/0.07/1/0, dsn=4.4.4, status=deferred (unable to look up host postfx: Temporary failure in name resolution)
"""  # noqa: E501
# Lines of a check, as logged in a lab: a mail of its own that bounces, its client that is refused, and its handshakes.
CHECK = """\
2026-11-30T04:49:05.103Z Nov 30 04:49:05 sender postfix/pickup[967]: B167A1B2292: uid=1000 from=<student@example.com>
2026-11-30T04:49:05.104Z Nov 30 04:49:05 sender postfix/cleanup[960]: B167A1B2292: message-id=<17960.84.5.check-0a1b2c3d4e5f@example.com>
2026-11-30T04:49:05.105Z Nov 30 04:49:05 sender postfix/qmgr[961]: B167A1B2292: from=<student@example.com>, size=330, nrcpt=1 (queue active)
2026-11-30T04:49:05.803Z Nov 30 04:49:05 sender postfix/smtp[967]: B167A1B2292: to=<alice@example.com>, relay=postfix[10.213.229.163]:587, delay=0.08, delays=0.01/0/0.06/0.01, dsn=5.7.1, status=bounced (host postfix[10.213.229.163] said: 553 5.7.1 <student@example.com>: Sender address rejected: not logged in (in reply to RCPT TO command))
2026-11-30T04:49:05.804Z Nov 30 04:49:05 sender postfix/bounce[968]: B167A1B2292: sender non-delivery notification: C167A1B2292
2026-11-30T04:49:05.805Z Nov 30 04:49:05 sender postfix/cleanup[960]: C167A1B2292: message-id=<20261130044905.C167A1B2292@sender.example.com>
2026-11-30T04:49:05.806Z Nov 30 04:49:05 sender postfix/qmgr[961]: C167A1B2292: from=<>, size=2330, nrcpt=1 (queue active)
2026-11-30T04:49:05.900Z Nov 30 04:49:05 sender postfix/smtp[967]: C167A1B2292: to=<student@example.com>, relay=none, delay=0.1, delays=0.04/0.06/0/0, dsn=4.4.1, status=deferred (connect to postfix[10.213.229.163]:588: No route to host)
2026-11-30T04:49:06.431Z Nov 30 04:49:06 postfix postfix/submissions/smtpd[617]: SSL_accept error from unknown[10.213.229.164]: lost connection
2026-11-30T04:49:06.485Z Nov 30 04:49:06 postfix postfix/smtpd[621]: NOQUEUE: reject: RCPT from unknown[10.213.229.164]: 554 5.7.1 <someone@elsewhere.test>: Relay access denied; from=<someone@outside.test> to=<someone@elsewhere.test> proto=ESMTP helo=<client.test>
"""  # noqa: E501


def explained(log: str, everything: bool = False) -> Explanation:
    """Return what `explain` has to say about a log, with or without --all."""

    def read() -> list[tuple[str, str]]:
        return [("", line) for line in log.splitlines()]

    return explaining.of_everything(read) if everything else explaining.of_last_mail(read)


def ids(found: Explanation) -> list[str]:
    return [each.failure.id for each in found.failures]


def test_the_failure_of_the_last_mail_is_explained_and_not_that_of_an_earlier_one() -> None:
    found = explained(REFUSED_PORT + MISSPELT)
    assert found.mail is not None and found.mail.message_id == "two@sender.example.com"
    assert ids(found) == ["name-not-resolved"] and found.older == 1


def test_all_failures_are_explained_in_the_order_of_their_times() -> None:
    assert ids(explained(MISSPELT + REFUSED_PORT, everything=True)) == ["connection-refused", "name-not-resolved"]


def test_a_last_mail_that_went_well_leaves_nothing_to_explain_but_the_number_of_older_failures() -> None:
    well = "".join(f"2026-11-30T06:00:00.{each:03}Z {line}\n" for each, line in enumerate(mail(1, "3@a").splitlines()))
    found = explained(REFUSED_PORT + MISSPELT + well)
    assert found.mail is not None and found.mail.arrived
    assert ids(found) == [] and found.older == 2


def test_what_a_check_provoked_is_left_out_also_its_bounces_and_lines_that_name_no_mail() -> None:
    found = explained(REFUSED_PORT + CHECK)
    assert found.mail is not None and found.mail.message_id == "one@sender.example.com"
    assert ids(found) == ["connection-refused"] and found.older == 0
    assert ids(explained(REFUSED_PORT + CHECK, everything=True)) == ["connection-refused"]


def test_a_line_without_a_mail_at_another_time_than_a_check_s_is_explained() -> None:
    line = CHECK.splitlines()[8].replace("T04:49", "T05:49").replace(" 04:49", " 05:49")
    assert ids(explained(CHECK + line, everything=True)) == ["tls-handshake-failed"]


def test_a_mail_that_was_refused_in_the_dialogue_is_explained() -> None:
    found = explained(refused(2, "laptop.example"))
    assert ids(found) == ["mailbox-unknown"] and found.mail is not None


def test_a_mail_that_was_given_up_has_a_verdict_and_no_known_failure() -> None:
    found = explained(CLIENT_GONE)
    assert found.mail is not None and found.mail.status == "aborted" and ids(found) == []


def test_a_mail_that_outgrew_the_limit_is_explained_with_the_line_that_shows_it() -> None:
    found = explained(TOO_LARGE)
    assert ids(found) == ["too-large"]
    assert found.failures[0].example.endswith("queue file size limit exceeded")


def test_without_a_mail_of_the_user_there_is_nothing_but_a_number() -> None:
    found = explained(CHECK + mail(1, "1.2.proof-of-lab@a.example"))
    assert found.mail is None and ids(found) == [] and found.older == 0
