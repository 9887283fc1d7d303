"""The sender's relay host, its provider in the lab: credentials, verified TLS, and a queue that keeps mail.

These checks change the sender's credentials and restore them, one check after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mailstack.actions import credentials, sending
from mailstack.checks import Concurrency, Family
from mailstack.checks.bench import ARRIVAL_SECONDS, Bench
from mailstack.checks.deliveries import count_arrived, flush, queue_entry
from mailstack.checks.judging import expect
from mailstack.checks.logs import mail_lines
from mailstack.roles import Role
from mailstack.secret import Secret, new_password

family = Family("relay", Concurrency.SENDER)


def _relay(bench: Bench) -> tuple[str, Secret]:
    """Return the user and the password of the sender's relay host. Raises NotApplicable when it is outside the lab."""
    bench.refuse_outside_relay()
    return bench.relay


def _own_map(bench: Bench) -> tuple[str, Secret]:
    """Return what `_relay` returns. Raises NotApplicable also when the map of credentials is the student's."""
    bench.refuse_blank_sender()
    return _relay(bench)


def _send_mail(bench: Bench) -> str:
    """Send a mail to the first account with `mail -s` on the sender, as its user; return the Message-ID."""
    message_id = str(bench.message([bench.alice])["Message-ID"])
    letter = sending.Letter(bench.student, (bench.alice,), "CCN Lab", "This is the first mail of the lab.")
    sending.from_sender(bench.lab, letter, message_id)
    return message_id


def _log_line(bench: Bench, role: Role, message_id: str, text: str) -> str:
    """Return the first line about a mail in a Postfix log that contains `text`. Raises Unmet."""
    lines, hit = mail_lines(bench.log(role), message_id, text)
    expect(hit, f"{bench.lab.defined.name(role)} logged no “{text}” for {message_id}, only {lines[-2:]}")
    return hit


@contextmanager
def _credentials(bench: Bench, line: str) -> Iterator[None]:
    """Give the sender other credentials within `with`."""
    user, password = bench.relay
    container = bench.container(Role.SENDER)
    try:
        credentials.hand_to_sender(bench.engine, container, line)
        yield
    finally:
        credentials.hand_to_sender(bench.engine, container, f"{user}:{password.reveal()}\n")


def _tls_lines(bench: Bench, role: Role, line: str) -> list[str]:
    """Return the TLS lines of the process that logged `line`. TLS is set up before the log names the mail."""
    process = re.search(r"\bsmtpd?\[\d+\]: ", line)
    return [each for each in bench.log(role, 0) if process and process[0] in each and _TLS in each]


_TLS = "TLS connection established"


@family(
    "mail-s",
    "`mail -s` on the sender arrives, by the relay's user, over verified TLS",
    "RFC 6409; SASL_README and TLS_README of Postfix",
)
def mail_goes_by_the_relay(bench: Bench) -> str:
    user, _ = _relay(bench)
    message_id = _send_mail(bench)
    copies = count_arrived(bench, bench.alice, message_id, ARRIVAL_SECONDS)
    expect(copies == 1, f"{copies} copies for {bench.alice}")
    client = _log_line(bench, Role.SUBMISSION, message_id, "sasl_username=")
    by_hand = bench.lab.defined.blank  # with a log-in of the student's choice, and a CA or none
    expect(by_hand or f"sasl_username={user}" in client, client)
    submitted = _tls_lines(bench, Role.SUBMISSION, client)
    expect(submitted, f"postfix logged no TLS for {client}")
    sent = _log_line(bench, Role.SENDER, message_id, "status=sent")
    if by_hand:
        return f"{client.partition(', ')[2]}; {submitted[-1].partition(': ')[2].partition(' key-exchange')[0]}"
    verified = [line for line in _tls_lines(bench, Role.SENDER, sent) if f"Verified {_TLS}" in line]
    expect(verified, "the sender logged no verified TLS connection")
    return f"sasl_username={user}; {verified[-1].partition(': ')[2].partition(' key-exchange')[0]}"


@family(
    "map-private",
    "the sender's map of credentials is on tmpfs, for root alone (0600)",
    "SASL_README of Postfix",
)
def map_of_credentials_is_private(bench: Bench) -> str:
    _own_map(bench)
    script = "stat -c '%a %U' /run/relay/sasl_passwd /run/relay/sasl_passwd.lmdb; stat -f -c %T /run/relay/sasl_passwd"
    result = bench.engine.execute(bench.container(Role.SENDER), ["sh", "-c", script])
    evidence = ", ".join(result.stdout.splitlines())
    return expect(evidence == "600 root, 600 root, tmpfs", evidence or result.stderr.strip())


@family("no-credentials", "without credentials the provider refuses, and nothing arrives", "RFC 6409, section 4.3")
def mail_without_credentials_is_refused(bench: Bench) -> str:
    _own_map(bench)
    with _credentials(bench, ""):
        message_id = _send_mail(bench)
        outcome = _log_line(bench, Role.SENDER, message_id, "status=")
        expect("status=bounced" in outcome and re.search(r"said: 5\d\d", outcome), outcome)
        # The bounce for the student fails as well. Wait for it, so that it is not sent with the next credentials.
        notice = _log_line(bench, Role.SENDER, message_id, "non-delivery notification: ").rpartition(" ")[2]
        removed = any(f"]: {notice}: removed" in line for line in bench.log(Role.SENDER))
        expect(removed, f"{notice} is still in the sender's queue")
    expect(not count_arrived(bench, bench.alice, message_id, 0), f"{message_id} was delivered nevertheless")
    return outcome.partition("dsn=")[2]


@family(
    "wrong-credentials",
    "wrong credentials: 535, the mail waits in the sender, and leaves when they are right",
    "RFC 4954, section 6; postconf(5), smtp_sasl_auth_soft_bounce",
)
def mail_with_wrong_credentials_waits(bench: Bench) -> str:
    user, _ = _own_map(bench)
    with _credentials(bench, f"{user}:{new_password().reveal()}\n"):
        message_id = _send_mail(bench)
        outcome = _log_line(bench, Role.SENDER, message_id, "status=")
        expect("status=deferred" in outcome and "535" in outcome, outcome)
        match = re.search(r"\]: (\w+): to=", outcome)
        entry = queue_entry(bench, Role.SENDER, match[1] if match else "")
        expect(not count_arrived(bench, bench.alice, message_id, 0), f"{message_id} was delivered nevertheless")
    flush(bench, entry)
    copies = count_arrived(bench, bench.alice, message_id, ARRIVAL_SECONDS)
    expect(copies == 1, f"after the credentials were restored: {copies} copies for {bench.alice}")
    return f"{outcome.partition('status=')[2]}; 1 copy with the right credentials"
