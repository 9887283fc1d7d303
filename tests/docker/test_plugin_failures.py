"""The report of a failing test on a mail that did not arrive, or should not have arrived."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.config.files import passwords
from mailstack.lab.running import RunningLab
from tests.docker.conftest import Labs
from tests.docker.suites import SEND, Run

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.docker


# A lab whose Postfix puts off, or on hold, what the header says.
OVERLAY = r"""
x-mailstack:
  settings:
    postfix:
      header_checks: regexp:{{/^X-Greylisted:/ FILTER retry:4.2.0 greylisted}, {/^X-Held:/ HOLD by rule}}
"""


@pytest.fixture(scope="module")
def lab(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    overlay = tmp_path_factory.mktemp("overlay") / "late.yaml"
    overlay.write_text(OVERLAY)
    with labs.one("plugin", [overlay]) as lab:
        yield lab


def test_a_wait_in_vain_tells_what_came_instead_why_it_waits_and_its_journey(
    on_lab: Run, lab: RunningLab, tmp_path: Path
) -> None:
    result = on_lab(
        SEND
        + """
    def test_reset(mailbox, smtp_settings):
        send(smtp_settings, mailbox.address, "Invoice 7", sender="billing@example.com")
        send(smtp_settings, mailbox.address, "Welcome")
        mailbox.wait_for_messages(2)
        import smtplib
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(smtp_settings, "x" + mailbox.address, "Password reset")
        mailbox.wait_for_message(subject="Password reset", sender="shop@example.com", timeout=0.3)

    def test_wrapped(mailbox):
        try:
            mailbox.wait_for_message(timeout=0.1)
        except AssertionError as error:
            raise RuntimeError("the shop is broken") from error
""",
        "--showlocals",
        "--mailstack-artifacts",
        str(tmp_path / "kept"),
    )
    result.assert_outcomes(failed=2)
    shown = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "*no mail with the subject “Password reset” from shop@example.com arrived for reset-* within 300 ms",
            "*2 other mails arrived, closest match first:",
            "*<Message 2: “Welcome” from shop@example.com to reset-*@example.com>",
            "*subject: “Welcome”, not “Password reset”",
            "*sender: matches",
            "*<Message 1: “Invoice 7” from billing@example.com to reset-*@example.com>",
            "*sender: billing@example.com, not shop@example.com",
            "*- mailstack: the mailbox of reset-*@example.com -*",
            "*here is what you wanted.",
            "*- mailstack: the queues -*",
            "*no mails*",
            "*- mailstack: journeys of mails for reset-*@example.com -*",
            "<Invoice-7.reset-*@example.com> from billing@example.com: delivered to reset-*@example.com in *",
            "*sent to reset-*@example.com*",
            "*- mailstack: the last lines of dovecot -*",
            "*Invoice-7.reset-*saved mail to INBOX*",
            "*- mailstack: the last lines of postfix -*",
            "*status=sent*",
        ]
    )
    assert "refused by postfix" in shown and "5.1.1" in shown  # the mail with the wrong address
    assert "no server has logged a mail for it" in shown  # of the second test
    texts = [shown, *(path.read_text() for path in (tmp_path / "kept").rglob("*.*") if path.is_file())]
    secrets = [password.reveal() for password in passwords(lab.directory.files).values()]
    assert len(texts) > 10 and not [value for value in secrets for text in texts if value in text]
    (kept,) = (tmp_path / "kept").glob("*test_reset*")
    files = {path.name for path in kept.iterdir()}
    assert {"postfix.log", "dovecot.log", "sender.log", "1.eml", "2.eml", "journeys.json", "the queues.txt"} <= files
    journeys = json.loads((kept / "journeys.json").read_text())
    assert "delivered" in {journey["status"] for journey in journeys}
    assert b"here is what you wanted" in (kept / "1.eml").read_bytes()


def test_a_mail_that_stands_in_a_queue_is_no_mail_that_was_not_sent(on_lab: Run) -> None:
    result = on_lab(
        SEND
        + """
    def send_late(settings, to, subject, header, sender="shop@example.com"):
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"], mail[header] = sender, to, subject, "yes"
        mail.set_content("x")
        with settings.connect() as session:
            session.send_message(mail)

    def test_greylisted(mailbox, smtp_settings):
        send_late(smtp_settings, mailbox.address, "Welcome", "X-Greylisted")
        mailbox.assert_no_message(within=0.3)

    def test_held(mailbox, smtp_settings):
        send_late(smtp_settings, mailbox.address.replace("@", "+shop@"), "Invoice 7", "X-Held")
        mailbox.assert_no_message(within=0, subject="invoice")

    def test_others(mailbox, mailbox_factory, smtp_settings):
        send_late(smtp_settings, mailbox.address, "Welcome", "X-Held")
        mailbox.assert_no_message(within=0, subject="Invoice")
        mailbox_factory().assert_no_message(within=0)

    def test_one_that_has_come_is_not_on_its_way(mailbox, smtp_settings):
        for number in range(20):
            send(smtp_settings, mailbox.address, f"number {number}.")
            message = mailbox.wait_for_message(subject=f"number {number}.")
            mailbox.assert_no_message(within=0, after=message)
            mailbox.clear()
            mailbox.assert_no_message(within=0)
"""
    )
    result.assert_outcomes(failed=2, passed=2)
    result.stdout.fnmatch_lines(
        [
            "*expected no mail for greylisted-*@example.com, but this one is queued:",
            "*“Welcome” from shop@example.com: * in postfix, deferred: greylisted",
            "*- mailstack: the queues -*",
            "*expected no mail with the subject “invoice” for held-*@example.com, but this one is queued:",
            "*“Invoice 7” from shop@example.com: * in postfix, hold: not tried yet",
        ]
    )


def test_one_that_was_taken_out_of_the_mailbox_unseen_is_not_on_its_way(on_lab: Run) -> None:
    """Postfix removes a mail from its queue a moment after it was delivered: here that moment is a long one."""
    result = on_lab(
        SEND
        + """
    def test_it(mailbox, smtp_settings, mailstack_lab):
        from mailstack.model import Deadline
        from mailstack.protocol import imap, trust
        from mailstack.secret import Secret

        def run(script, user):
            container = mailstack_lab.service("postfix").container
            result = mailstack_lab.engine.execute(container, ["sh", "-euc", script], user=user)
            assert result.code == 0, result

        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"], mail["X-Held"] = "shop@example.com", mailbox.address, "Hello", "yes"
        mail["Message-ID"] = f"<{mailbox.address}>"
        with smtp_settings.connect() as session:
            session.send_message(mail)
        held = "/var/spool/postfix/hold"
        run(f"mkdir /tmp/kept; cp -p $(grep -l {mailbox.address} {held}/*) /tmp/kept", "postfix")
        run("postsuper -H $(ls /tmp/kept) && postqueue -f", "root")
        context = trust.tls_context(mailstack_lab.ca_file)
        with imap.mailbox(mailstack_lab.endpoints["imaps"], context, mailbox.address, Secret(mailbox.password)) as box:
            imap.wait_for(box, mail["Message-ID"], Deadline.after(10))
        mailbox.clear()
        run(f"cp -p /tmp/kept/* {held}", "postfix")
        try:
            mailbox.assert_no_message(within=0)
        finally:
            run(f"rm {held}/$(ls /tmp/kept); rm -r /tmp/kept", "postfix")
"""
    )
    result.assert_outcomes(passed=1)


# The last one on the shared lab: Postfix answers 454 once when its Dovecot was started again.
def test_a_wait_in_vain_tells_why_the_queue_has_not_delivered_it(on_lab: Run) -> None:
    result = on_lab(
        SEND
        + '''
    @pytest.fixture
    def dovecot(mailstack_lab):
        """Stops Dovecot until the test is over."""
        engine, container = mailstack_lab.engine, mailstack_lab.service("dovecot").container
        yield lambda: engine.stop(container, seconds=5)
        engine.start(container)

    def test_queue(mailbox, smtp_settings, dovecot):
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "shop@example.com", mailbox.address, "Welcome"
        mail["Message-ID"] = "<welcome@example.com>"
        with smtp_settings.connect() as session:
            dovecot()
            session.send_message(mail)
        mailbox.wait_for_message(subject="Welcome", timeout=1)
'''
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*the mailbox of queue-*@example.com cannot be read: IMAP at 127.0.0.1:* cannot be reached: *",
            "*- mailstack: the queues -*",
            "* in postfix, deferred for *, next try in *: from shop@example.com to",
            "    queue-*@example.com: *lmtp*",
            "*- mailstack: journeys of mails for queue-*@example.com -*",
            "<welcome@example.com> from shop@example.com: waiting in postfix for queue-*@example.com: *lmtp*",
            "*not sent to queue-*@example.com: will be retried",
            "remedy: *",
            "*- mailstack: the last lines of dovecot -*",
            "not running: exited",
            "*- mailstack: the last lines of postfix -*",
            "*status=deferred*",
        ]
    )
