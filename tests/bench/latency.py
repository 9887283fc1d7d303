"""From submission until who waits for the mail has it; and when a client that only uses IDLE hears of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

from mailstack.actions.accounts import Accounts
from mailstack.config import files
from mailstack.lab.running import RunningLab
from mailstack.protocol import imap, trust
from mailstack.testing import Mailbox, MailboxFactory, Password, SmtpSettings
from tests import engines
from tests.bench.measuring import MAILSTACK, Figures, Ratio, Row, percentile, run, say

TITLE = "submission to seen"
NAME = "bench-latency"

MAILS = 300
IDLE_MAILS = 20

NOTES = (
    f"{MAILS} mails, one after another, over one session with TLS and AUTH; each is waited for by its subject.",
    "Dovecot gathers what is new for 500 ms before it tells who is in IDLE: `wait_for_message` asks by itself (NOOP).",
)


def measure(runs: int) -> Figures:
    """One mail after another; `runs` is not asked, since percentiles want hundreds."""
    run([MAILSTACK, "up", "-n", NAME])
    try:
        lab = RunningLab(NAME, engines.here())
        with Accounts(lab) as accounts:
            factory = MailboxFactory(accounts, "bench")
            pairs = tuple(_seen(factory(), _settings(lab)))
            idle = tuple(_heard(lab, factory(), _settings(lab)))
            factory.close()
    finally:
        run([MAILSTACK, "down", "-n", NAME])
    sending, accepted = (tuple(each) for each in zip(*pairs, strict=True))
    return Figures(
        (
            Row("from the reply 250 to the message in hand", accepted, "ms"),
            Row("from the begin of MAIL FROM to the same", sending, "ms"),
            Row("from 250 to EXISTS, a client in IDLE", idle, "ms"),
        ),
        (
            Ratio("from 250, p50, ms", percentile(accepted, 50), bar=10),
            Ratio("from 250, p95, ms", percentile(accepted, 95)),
            Ratio("from 250, p99, ms", percentile(accepted, 99), bar=60),
            Ratio("from MAIL FROM, p50, ms", percentile(sending, 50)),
            Ratio("from MAIL FROM, p95, ms", percentile(sending, 95)),
            Ratio("from MAIL FROM, p99, ms", percentile(sending, 99)),
        ),
        NOTES,
    )


def _settings(lab: RunningLab) -> SmtpSettings:
    relay = files.read_relay(lab.directory.files)
    assert relay is not None
    endpoint = lab.endpoints["submission"]
    return SmtpSettings(endpoint.host, endpoint.port, relay[0], Password(relay[1].reveal()), Path(lab.ca_file))


def _seen(mailbox: Mailbox, settings: SmtpSettings) -> Iterator[tuple[float, float]]:
    """For each mail the milliseconds from the begin of its transaction, and from its end, until it was seen."""
    before = None
    with settings.connect() as session:
        for number in range(-3, MAILS):
            letter = _letter(mailbox.address, number)
            begun = time.perf_counter()
            session.send_message(letter)
            accepted = time.perf_counter()
            before = mailbox.wait_for_message(subject=f"mail {number}.", after=before)
            seen = time.perf_counter()
            say(f"mail {number} of {MAILS}")
            if number >= 0:
                yield 1000 * (seen - begun), 1000 * (seen - accepted)
    say("")


def _heard(lab: RunningLab, mailbox: Mailbox, settings: SmtpSettings) -> Iterator[float]:
    """For each mail the milliseconds until the server told of it in IDLE (RFC 2177)."""
    context = trust.tls_context(lab.ca_file)
    password = lab.password(mailbox.address)
    with (
        settings.connect() as session,
        imap.mailbox(lab.endpoints["imaps"], context, mailbox.address, password) as box,
    ):
        for number in range(IDLE_MAILS):
            with box.idle as idle:
                session.send_message(_letter(mailbox.address, number))
                accepted = time.perf_counter()
                while not any(b"EXISTS" in line for line in idle.poll(timeout=5)):
                    pass
                yield 1000 * (time.perf_counter() - accepted)


def _letter(to: str, number: int) -> EmailMessage:
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = "shop@example.com", to, f"mail {number}."
    letter.set_content("Dear customer,\nhere is what you wanted.\n")
    return letter
