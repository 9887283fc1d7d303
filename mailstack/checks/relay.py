"""The sender's way through its provider: with credentials, verified TLS, and a queue that waits.

These change the sender's credentials and put them back, one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mailstack import credentials, post
from mailstack.checks import Family, NotApplicable, Turn, Unmet, expect
from mailstack.checks.bench import ARRIVAL_SECONDS, Bench
from mailstack.secret import new_password

family = Family("relay", Turn.SENDER)


def _student(bench: Bench) -> str:
    """Who writes: any account of the sender's mail name will do, the student's by preference."""
    domain = bench.lab.definition().mailname
    return f"{post.STUDENT}@{domain}"


def _write(bench: Bench) -> str:
    """`mail -s` on the sender to the first account: the mail's Message-ID."""
    if bench.lab.state.relay:
        raise NotApplicable("the lab relays through a provider outside")
    message_id = str(bench.message([bench.alice])["Message-ID"])
    letter = post.Letter(_student(bench), (bench.alice,), "CCN Lab", "This is the first mail of the lab.")
    post.from_sender(bench.lab, letter, message_id)
    return message_id


def _queue_id(log: str, message_id: str) -> str | None:
    match = re.search(rf"cleanup\[\d+\]: (\w+): message-id={re.escape(message_id)}", log)
    return match[1] if match else None


def _lines(bench: Bench, service: str, message_id: str, wanted: str) -> list[str]:
    """The log lines of this mail in a Postfix, once one of them has `wanted` in it."""
    seen: list[str] = []
    lines: list[str] = []
    queue_id = None
    for line in bench.heard(service):
        seen.append(line)
        queue_id = queue_id or _queue_id(line, message_id)
        lines = [each for each in seen if queue_id and f": {queue_id}: " in each]
        if any(wanted in each for each in lines):
            return lines
    raise Unmet(f"{service} logged no “{wanted}” for {message_id}: {lines[-2:] or 'nothing at all'}")


def _given_up(bench: Bench, message_id: str) -> None:
    """Wait until the sender has given up on telling the student, too, that this mail came back."""
    notice = _lines(bench, "sender", message_id, "non-delivery notification: ")[-1].rpartition(" ")[2]
    expect(any(f"]: {notice}: removed" in line for line in bench.heard("sender")), f"{notice} is still in its queue")


@contextmanager
def _credentials(bench: Bench, line: str) -> Iterator[None]:
    """Other credentials in the sender, for a while."""
    user, password = bench.relay
    container = bench.container("sender")
    try:
        credentials.hand_to_sender(bench.engine, container, line)
        yield
    finally:
        credentials.hand_to_sender(bench.engine, container, f"{user}:{password.reveal()}\n")


@family(
    "mail-s",
    "`mail -s` on the sender arrives, by the relay's user, over verified TLS",
    "RFC 6409; SASL_README and TLS_README of Postfix",
)
def _(bench: Bench) -> str:
    message_id = _write(bench)
    found = bench.found(bench.alice, message_id, ARRIVAL_SECONDS)
    expect(len(found) == 1, f"{len(found)} copies for {bench.alice}")
    user, _ = bench.relay
    provider = _lines(bench, "postfix", message_id, "sasl_username=")
    client = next(line for line in provider if "client=" in line)
    expect(f"sasl_username={user}" in client, client)
    # The log says how the connection was secured before it says whose mail came over it: pair them by process.
    process = re.search(r"smtpd\[(\d+)\]", client)
    log = bench.engine.logs(bench.container("postfix"), tail=4000).splitlines()
    secured = [
        line for line in log if process and f"smtpd[{process[1]}]: " in line and "TLS connection established" in line
    ]
    expect(secured, f"postfix logged no TLS for {client}")
    sender = _lines(bench, "sender", message_id, "status=sent")
    sent = bench.engine.logs(bench.container("sender"), tail=4000)
    client_process = re.search(r"smtp\[(\d+)\]", next(line for line in sender if "status=sent" in line))
    verified = [
        line
        for line in sent.splitlines()
        if client_process and f"smtp[{client_process[1]}]: Verified TLS connection established" in line
    ]
    expect(verified, "the sender logged no verified TLS connection")
    return f"sasl_username={user}; {verified[-1].partition(': ')[2].partition(' key-exchange')[0]}"


@family(
    "map-private",
    "the sender's map of credentials is on tmpfs, for root alone (0600)",
    "SASL_README of Postfix",
)
def _(bench: Bench) -> str:
    if bench.lab.state.relay:
        raise NotApplicable("the lab relays through a provider outside")
    script = "stat -c '%a %U' /run/relay/sasl_passwd /run/relay/sasl_passwd.lmdb; stat -f -c %T /run/relay/sasl_passwd"
    result = bench.engine.execute(bench.container("sender"), ["sh", "-c", script])
    evidence = ", ".join(result.stdout.splitlines())
    expect(evidence == "600 root, 600 root, tmpfs", evidence or result.stderr.strip())
    return evidence


@family("no-credentials", "without credentials the provider refuses, and nothing arrives", "RFC 6409, section 4.3")
def _(bench: Bench) -> str:
    _skip_outside(bench)
    with _credentials(bench, ""):
        message_id = _write(bench)
        lines = _lines(bench, "sender", message_id, "status=")
        outcome = next(line for line in lines if "status=" in line)
        expect("status=bounced" in outcome and re.search(r"said: 5\d\d", outcome), outcome)
        _given_up(bench, message_id)
    expect(not bench.found(bench.alice, message_id, 0), f"{message_id} arrived all the same")
    return outcome.partition("dsn=")[2]


@family(
    "wrong-credentials",
    "wrong credentials: 535, the mail waits in the sender, and leaves when they are right",
    "RFC 4954, section 6; postconf(5), smtp_sasl_auth_soft_bounce",
)
def _(bench: Bench) -> str:
    _skip_outside(bench)
    user, _ = bench.relay
    with _credentials(bench, f"{user}:{new_password().reveal()}\n"):
        message_id = _write(bench)
        lines = _lines(bench, "sender", message_id, "status=")
        outcome = next(line for line in lines if "status=" in line)
        expect("status=deferred" in outcome and "535" in outcome, outcome)
        queue_id = _queue_id(bench.engine.logs(bench.container("sender"), tail=4000), message_id)
        waiting = bench.waiting("sender", str(queue_id))
        expect(not bench.found(bench.alice, message_id, 0), f"{message_id} arrived all the same")
    bench.flush(waiting)
    found = bench.found(bench.alice, message_id, ARRIVAL_SECONDS)
    expect(len(found) == 1, f"with the right credentials again: {len(found)} copies for {bench.alice}")
    return f"{outcome.partition('status=')[2]}; then 1 copy"


def _skip_outside(bench: Bench) -> None:
    if bench.lab.state.relay:
        raise NotApplicable("the lab relays through a provider outside")
