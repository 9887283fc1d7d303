"""The sender's relay host, its provider in the lab: settings, credentials, TLS, and a queue that keeps mail.

The checks judge what is in effect, also where it was set up by hand. Two of them put other credentials into the map
that is in effect, and restore it, one check after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mailstack.actions import sending
from mailstack.checks import Concurrency, Family
from mailstack.checks.bench import ARRIVAL_SECONDS, Bench
from mailstack.checks.client import rows
from mailstack.checks.client.facts import Facts, Login, PasswordMap
from mailstack.checks.client.observation import Machine
from mailstack.checks.client.swap import is_possible, swapped
from mailstack.checks.deliveries import count_arrived, flush, queue_entry
from mailstack.checks.judging import NotApplicable, Unmet, expect
from mailstack.checks.logs import mail_lines
from mailstack.errors import MailstackError
from mailstack.roles import Role
from mailstack.secret import new_password

family = Family("relay", Concurrency.SENDER)


def _facts(bench: Bench) -> Facts:
    """Return what is in effect on the sender. Raises NotApplicable when its relay host is outside the lab."""
    bench.refuse_outside_relay()
    return bench.once("the sender's settings", lambda: Machine(bench.lab).facts())


@contextmanager
def _explained(bench: Bench) -> Iterator[Facts]:
    """Yield what is in effect on the sender, where Postfix runs; add to a failure the settings that are its cause."""
    facts, causes = _facts(bench), _causes(bench)
    if facts.error or not facts.running:
        raise Unmet(causes)
    try:
        yield facts
    except (Unmet, MailstackError) as error:
        bench.note_unsent()
        happened = error.whole() if isinstance(error, MailstackError) else str(error)
        raise Unmet(f"{happened}\n{causes}" if causes else happened) from None


def _causes(bench: Bench) -> str:
    """Return the first wrong setting, and the command that names the remedy and the others; "" if there is none."""
    wrong = rows.wrong(_facts(bench))
    if not wrong:
        return ""
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{wrong[0].sentence}\nits remedy{more}: `{bench.lab.line('check', 'relay.settings')}`"


@contextmanager
def _credentials(bench: Bench, facts: Facts, login: str) -> Iterator[None]:
    """Give the sender other credentials within `with`, in the map that is in effect; "" for none."""
    table = _table(facts)
    with swapped(bench.engine, bench.container(Role.SENDER), table, f"{facts.key} {login}" if login else ""):
        yield


def _table(facts: Facts) -> PasswordMap:
    """Return the map in effect. Raises Unmet when there is none that can be read."""
    expect(facts.maps, "the sender has no map of credentials")
    table = facts.maps[0]
    if table.path.startswith("/") and not is_possible(table):
        raise Unmet(f"{table.name} cannot be read")
    if not is_possible(table):
        raise NotApplicable(f"{table.name}: the credentials are in no file of their own")
    return table


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


def _result(line: str) -> str:
    """Return the end of the line of a delivery attempt, from its enhanced status code on."""
    return line[max(line.find("dsn="), 0) :]


def _tls_lines(bench: Bench, role: Role, line: str) -> list[str]:
    """Return the TLS lines of the process that logged `line`. TLS is set up before the log names the mail."""
    process = re.search(r"\bsmtpd?\[\d+\]: ", line)
    return [each for each in bench.log(role, 0) if process and process[0] in each and _TLS in each]


_TLS = "TLS connection established"


@family(
    "settings",
    "the settings in effect on the sender lead to its provider, logged in, over verified TLS",
    "postconf(5); SASL_README, TLS_README and STANDARD_CONFIGURATION_README of Postfix",
)
def settings_lead_to_the_provider(bench: Bench) -> str:
    facts = _facts(bench)
    wrong = rows.wrong(facts)
    expect(not wrong, rows.report(wrong))
    return f"relayhost = {facts.setting('relayhost')}, {facts.login_user}, TLS level {facts.client_tls}"


@family(
    "mail-s",
    "`mail -s` on the sender arrives, by a user of the provider, over verified TLS",
    "RFC 6409; SASL_README and TLS_README of Postfix",
)
def mail_goes_by_the_relay(bench: Bench) -> str:
    with _explained(bench) as facts:
        message_id = _send_mail(bench)
        sent = _log_line(bench, Role.SENDER, message_id, "status=")
        expect("status=sent" in sent, _result(sent))
        copies = count_arrived(bench, bench.alice, message_id, ARRIVAL_SECONDS)
        expect(copies == 1, f"{copies} copies for {bench.alice}")
        client = _log_line(bench, Role.SUBMISSION, message_id, "sasl_username=")
        user = client.partition("sasl_username=")[2].split(",")[0]
        expect(facts.login is Login.ACCEPTED and user == facts.login_user.lower(), client)
        expect(_tls_lines(bench, Role.SUBMISSION, client), f"postfix logged no TLS for {client}")
        return f"sasl_username={user}; {_verified(facts, _tls_lines(bench, Role.SENDER, sent))}"


def _verified(facts: Facts, lines: list[str]) -> str:
    """Return how the provider's certificate was verified, from the sender's TLS lines about it. Raises Unmet.

    Postfix compares the name only at the levels that insist on it, and calls the certificate “Trusted” at the others
    (TLS_README). It logs nothing without smtp_tls_loglevel: then what is in effect tells.
    """
    insists = facts.client_tls in ("verify", "secure", "fingerprint", "dane-only")
    if not lines:
        expect(insists or facts.trusts_provider, "the sender could not verify the provider's certificate")
        return f"TLS level {facts.client_tls}, the provider's CA is in {facts.ca_bundle or 'no file'}"
    verified = [
        line for line in lines if re.search(rf"\b{'Verified' if insists else '(Verified|Trusted)'} {_TLS}", line)
    ]
    expect(verified, "the sender logged no verified TLS connection")
    return verified[-1].partition(": ")[2].partition(" key-exchange")[0]


@family("map-private", "the sender's map of credentials is for root alone (0600)", "SASL_README of Postfix")
def map_of_credentials_is_private(bench: Bench) -> str:
    with _explained(bench) as facts:
        table = _table(facts)
        files = list(dict.fromkeys((table.path, table.file)))
        script = 'for file; do [ ! -e "$file" ] || stat -c "%a %U" "$file"; done; stat -f -c %T "$(dirname "$1")"'
        result = bench.engine.execute(bench.container(Role.SENDER), ["sh", "-c", script, "sh", *files])
        evidence = ", ".join(result.stdout.splitlines())
        *modes, system = result.stdout.splitlines() or [""]
        expect(modes and set(modes) == {"600 root"}, evidence or result.stderr.strip())
        # The lab's own map is on no disk. Elsewhere it is where the user has put it.
        return expect(not table.path.startswith("/run/") or system == "tmpfs", evidence)


@family("no-credentials", "without credentials the provider refuses, and nothing arrives", "RFC 6409, section 4.3")
def mail_without_credentials_is_refused(bench: Bench) -> str:
    with _explained(bench) as facts:
        with _credentials(bench, facts, ""):
            message_id = _send_mail(bench)
            outcome = _log_line(bench, Role.SENDER, message_id, "status=")
            expect("status=bounced" in outcome and re.search(r"said: 5\d\d", outcome), outcome)
            # The bounce for the student fails as well. Wait for it, so that it is not sent with the next credentials.
            notice = _log_line(bench, Role.SENDER, message_id, "non-delivery notification: ").rpartition(" ")[2]
            removed = any(f"]: {notice}: removed" in line for line in bench.log(Role.SENDER))
            expect(removed, f"{notice} is still in the sender's queue")
        expect(not count_arrived(bench, bench.alice, message_id, 0), f"{message_id} was delivered nevertheless")
        return _result(outcome)


@family(
    "wrong-credentials",
    "wrong credentials: 535, the mail waits in the sender, and leaves when they are right",
    "RFC 4954, section 6; postconf(5), smtp_sasl_auth_soft_bounce",
)
def mail_with_wrong_credentials_waits(bench: Bench) -> str:
    with _explained(bench) as facts:
        with _credentials(bench, facts, f"{facts.login_user or bench.student}:{new_password().reveal()}"):
            message_id = _send_mail(bench)
            outcome = _log_line(bench, Role.SENDER, message_id, "status=")
            expect("status=deferred" in outcome and "535" in outcome, outcome)
            match = re.search(r"\]: (\w+): to=", outcome)
            entry = queue_entry(bench, Role.SENDER, match[1] if match else "")
            expect(not count_arrived(bench, bench.alice, message_id, 0), f"{message_id} was delivered nevertheless")
        flush(bench, entry)
        copies = count_arrived(bench, bench.alice, message_id, ARRIVAL_SECONDS)
        expect(copies == 1, f"after the credentials were restored: {copies} copies for {bench.alice}")
        return f"{_result(outcome)}; 1 copy with the right credentials"
