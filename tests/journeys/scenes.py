"""The table: every capture of the corpus, with how its mails are sent."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from tests.docker.faults import ALICE, Mail, Stage
from tests.docker.faults.cases import CASES, too_many_deliveries
from tests.journeys.crowd import crowd

BOB = "bob@example.com"
NOBODY = "nobody@example.com"


@dataclass(frozen=True)
class Scene:
    """A capture."""

    name: str
    about: str
    act: Callable[[Stage], Sequence[Mail]]
    fault: str | None = None
    undo: Callable[[Stage], None] | None = None
    lab: str = "world"
    imap: bool = True  # whether mailboxes can be looked into before `undo`
    silent: int = 0  # queue ids that are given up without a “removed” in the log


def _sent(*recipients: str, sender: str = ALICE) -> Callable[[Stage], Sequence[Mail]]:
    """With `mail -s` on the sender; everybody gets it."""
    return lambda stage: stage.send(dict.fromkeys(recipients, "delivered"), sender=sender)


def _submitted(*recipients: str, sender: str = ALICE) -> Callable[[Stage], Sequence[Mail]]:
    """Over port 587; everybody gets it."""
    return lambda stage: stage.submit(dict.fromkeys(recipients, "delivered"), sender=sender)


def _end_to_end(stage: Stage) -> Sequence[Mail]:
    message, sent = stage.message({BOB: "delivered"}, sender="somebody@elsewhere.test")
    with stage.smtp("smtp", "none") as session:
        session.send_message(message)
    return [sent]


def _partly_refused(stage: Stage) -> Sequence[Mail]:
    message, sent = stage.message({BOB: "delivered", NOBODY: "rejected"})
    with stage.smtp() as session:
        session.login(ALICE, stage.lab.password(ALICE).reveal())
        assert list(session.send_message(message)) == [NOBODY]
    return [sent]


def _refused(stage: Stage) -> Sequence[Mail]:
    message, sent = stage.message({NOBODY: "rejected"})
    with stage.smtp() as session:
        session.login(ALICE, stage.lab.password(ALICE).reveal())
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            session.send_message(message)
    return [sent]


def _full_for_one(stage: Stage) -> Sequence[Mail]:
    return stage.submit({BOB: "delivered", "dora@example.com": "bounced"}, body="0123456789abcdef\n" * 500)


def _held(stage: Stage) -> Sequence[Mail]:
    mails = stage.submit({"held@example.com": "held"})
    stage.heard("hold: RCPT", "held@example.com")
    return mails


def _released(stage: Stage) -> Sequence[Mail]:
    (sent,) = _held(stage)
    stage.run("postfix", "postsuper", "-H", "ALL")
    stage.run("postfix", "postqueue", "-f")
    return [Mail(sent.message_id, sent.sender, {"held@example.com": "delivered"})]


def _waiting(stage: Stage) -> Mail:
    """A mail that waits in the provider's queue, since LMTP is away."""
    stage.without_lmtp()
    (sent,) = stage.submit({BOB: "waiting"})
    stage.heard(BOB, "status=deferred")
    return sent


def _later(stage: Stage) -> Sequence[Mail]:
    sent = _waiting(stage)
    stage.with_lmtp()
    stage.run("postfix", "postqueue", "-f")
    return [Mail(sent.message_id, sent.sender, {BOB: "delivered"})]


def _after_restart(stage: Stage) -> Sequence[Mail]:
    sent = _waiting(stage)
    stage.with_lmtp()
    stage.lab.engine.stop(stage.container("postfix"))
    stage.lab.engine.start(stage.container("postfix"))
    stage.heard("daemon started -- version")
    stage.run("postfix", "postqueue", "-f")
    return [Mail(sent.message_id, sent.sender, {BOB: "delivered"})]


def _requeued(stage: Stage) -> Sequence[Mail]:
    sent = _waiting(stage)
    stage.with_lmtp()
    stage.run("postfix", "postsuper", "-r", "ALL")
    # pickup(8) takes it in anew when it wakes: every minute, or when it is told to, once it is back after a reload.
    wake = "until postkick public pickup W; do sleep 0.05; done"
    stage.run("postfix", "timeout", "10", "sh", "-c", wake)
    return [Mail(sent.message_id, sent.sender, {BOB: "delivered"})]


def _expired(stage: Stage) -> Sequence[Mail]:
    _lifetime(stage, "0")
    (sent,) = too_many_deliveries(stage)
    return [Mail(sent.message_id, sent.sender, dict.fromkeys(sent.expected, "bounced"))]


def _lifetime(stage: Stage, value: str) -> None:
    """How long Postfix goes on trying (postconf(5), maximal_queue_lifetime)."""
    stage.run("postfix", "postconf", "-e", f"maximal_queue_lifetime={value}")
    stage.run("postfix", "touch", "-d", "1 hour ago", "/etc/postfix/main.cf")
    stage.reload("postfix")


def _patient_again(stage: Stage) -> None:
    _lifetime(stage, "1d")


def _provider_away(stage: Stage) -> Sequence[Mail]:
    stage.lab.engine.stop(stage.container("postfix"))
    (sent,) = stage.send({BOB: "waiting"})
    stage.heard(BOB, "status=deferred")
    stage.lab.engine.start(stage.container("postfix"))
    stage.heard("daemon started -- version")
    stage.run("sender", "postqueue", "-f")
    return [Mail(sent.message_id, sent.sender, {BOB: "delivered"})]


def _dovecot_away(stage: Stage) -> Sequence[Mail]:
    stage.submit({BOB: "delivered"})  # there is an smtpd that knows Dovecot, and will find it gone
    stage.lab.engine.stop(stage.container("dovecot"))
    mails = stage.send({BOB: "waiting"})
    stage.heard(BOB, "status=deferred")
    return mails


def _dovecot_back(stage: Stage) -> None:
    stage.lab.engine.start(stage.container("dovecot"))
    stage.heard("starting up for")


def _two_failures(stage: Stage) -> Sequence[Mail]:
    return stage.send({BOB: "delivered", "grey@example.com": "waiting", NOBODY: "bounced"})


WELL = (
    Scene("delivered", "from the sender to one mailbox", _sent(BOB)),
    Scene("submitted", "over submission to one mailbox", _submitted(BOB)),
    Scene(
        "several",
        "from the sender to three mailboxes of two domains",
        _sent(BOB, "carol@example.org", "student@example.com"),
    ),
    Scene(
        "several-submitted",
        "over submission to three mailboxes",
        _submitted(BOB, "carol@example.org", "student@example.com"),
    ),
    Scene("alias", "an alias that stands for two", _sent("team@example.com")),
    Scene("catch-all", "an unknown address of a domain that takes all", _sent("whoever@example.org")),
    Scene("detail", "an address with a + and a detail", _sent("bob+lab@example.com")),
    Scene("to-oneself", "from and to the same mailbox, by an alias", _submitted("info@example.com")),
    Scene("end-to-end", "straight to port 25, from a stranger", _end_to_end),
    Scene(
        "partly",
        "one recipient gets it, the other is unknown",
        lambda stage: stage.send({BOB: "delivered", NOBODY: "bounced"}),
        "mailbox-unknown",
    ),
    Scene(
        "partly-refused",
        "one recipient gets it, the other is refused in the dialogue",
        _partly_refused,
        "mailbox-unknown",
    ),
    Scene("refused", "refused in the dialogue, so never queued", _refused, "mailbox-unknown"),
    Scene("full-for-one", "one recipient gets it, the other's mailbox is full", _full_for_one, "over-quota"),
    Scene("three-ways", "delivered to one, greylisted for another, unknown the third", _two_failures, "greylisted"),
    Scene("held", "put on hold as it came", _held),
    Scene("released", "put on hold, and released", _released),
    Scene("later", "deferred while LMTP was away, delivered at the next try", _later, "mailbox-server-down"),
    Scene(
        "after-restart",
        "deferred, then Postfix was stopped and started, then delivered",
        _after_restart,
        "mailbox-server-down",
    ),
    Scene(
        "requeued",
        "deferred, then requeued (postsuper -r), then delivered",
        _requeued,
        "mailbox-server-down",
        silent=1,
    ),
    Scene(
        "expired",
        "deferred, and returned to its sender: its time in the queue was over",
        _expired,
        "too-many-deliveries",
        _patient_again,
    ),
    Scene(
        "provider-away",
        "deferred in the sender while the provider was stopped, then delivered",
        _provider_away,
        "name-not-resolved",
    ),
)

# Every failure that a mail comes to; without it, there is no journey.
CAUSED = tuple(
    Scene(case.fault, f"the failure {case.fault}, caused", case.act, case.fault, case.undo, case.lab)
    for case in CASES
    if case.fault
    not in ("certificate-not-verified", "lookup-failed", "tls-key-unreadable", "authentication-unavailable")
)

SCENES = (
    *WELL,
    *CAUSED,
    Scene("crowd", "200 messages of many to many, at the same time", crowd),
    Scene(
        "authentication-unavailable",
        "Dovecot is away, so nobody can log in",
        _dovecot_away,
        "authentication-unavailable",
        _dovecot_back,
        imap=False,
    ),
)
