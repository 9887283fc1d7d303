"""The table: for every known failure a way to cause it, with the words by which it is found in the log."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Sequence

import pytest

from tests.docker.faults import ALICE, Case, Mail, Stage
from tests.docker.faults.worlds import CONNECTIONS, DELIVERIES, PROVIDERS

MAP = "/run/relay/sasl_passwd.lmdb"


def _to(recipient: str, status: str, sender: str = ALICE) -> Callable[[Stage], Sequence[Mail]]:
    """A mail from the sender."""
    return lambda stage: stage.send({recipient: status}, sender=sender)


def _provider(recipient: str, status: str) -> Callable[[Stage], Sequence[Mail]]:
    """A mail to one of the providers that Perl plays; they are started when they are first needed."""

    def act(stage: Stage) -> Sequence[Mail]:
        # The parent ends when its child listens; a second one finds the ports taken, and ends as well.
        stage.run("sender", "perl", "-e", PROVIDERS)
        return stage.send({recipient: status})

    return act


def _map_missing(stage: Stage) -> Sequence[Mail]:
    stage.run("sender", "mv", MAP, f"{MAP}.away")
    stage.reload("sender")
    return stage.send({"bob@example.com": "waiting"})


def _map_back(stage: Stage) -> None:
    stage.run("sender", "mv", f"{MAP}.away", MAP)
    stage.reload("sender")


def _no_map(stage: Stage) -> Sequence[Mail]:
    stage.run("sender", "postconf", "smtp_sasl_password_maps=")
    stage.reload("sender")
    return stage.send({"bob@example.com": "in-progress"})


def _map_again(stage: Stage) -> None:
    stage.run("sender", "postconf", "smtp_sasl_password_maps=lmdb:/run/relay/sasl_passwd")
    stage.reload("sender")


def _no_ca(stage: Stage) -> Sequence[Mail]:
    stage.run("sender", "postconf", "smtp_tls_CAfile=/dev/null")
    stage.reload("sender")
    return stage.send({"bob@example.com": "waiting"})


def _ca_back(stage: Stage) -> None:
    stage.run("sender", "postconf", "smtp_tls_CAfile=/run/relay/ca-certificates.crt")
    stage.reload("sender")


def _map_stale(stage: Stage) -> Sequence[Mail]:
    # Postfix tells of it only if the source is not brand-new either.
    stage.run("sender", "touch", "-d", "2 hours ago", MAP)
    stage.run("sender", "touch", "-d", "1 hour ago", "/run/relay/sasl_passwd")
    stage.reload("sender")
    return stage.send({"bob@example.com": "delivered"})


def _map_fresh(stage: Stage) -> None:
    stage.run("sender", "touch", "-d", "1 hour ago", MAP)
    stage.reload("sender")


def _no_key(stage: Stage) -> Sequence[Mail]:
    with pytest.raises((ssl.SSLError, OSError)), stage.smtp("submissions", "implicit"):
        pass
    return ()


def _too_many_connections(stage: Stage) -> Sequence[Mail]:
    for _ in range(CONNECTIONS):
        stage.hold("sender", ("postfix", "25"), (), b"220 ")
    return stage.send({"x@mx.test": "waiting"}, sender="out@elsewhere.test")


def too_many_deliveries(stage: Stage) -> Sequence[Mail]:
    for _ in range(DELIVERIES):
        say = ("LHLO postfix", "MAIL FROM:<>", "RCPT TO:<busy@example.com>")
        stage.hold("postfix", ("-U", "/run/sockets/lmtp"), say, b"250 2.1.5 ")
    return stage.submit({"busy@example.com": "waiting"})


def _too_many_hops(stage: Stage) -> Sequence[Mail]:
    message, sent = stage.message({"bob@example.com": "bounced"})
    hops = "".join(f"Received: from a{n}.test by b{n}.test; Mon, 23 Nov 2026 21:00:00 +0000\n" for n in range(60))
    stage.run(
        *("sender", "sendmail", "-f", sent.sender, "bob@example.com"),
        input=hops.encode() + message.as_bytes(),
        user="student",
    )
    return [sent]


def _too_large(stage: Stage) -> Sequence[Mail]:
    return stage.send({"bob@example.com": "bounced"}, body="0123456789abcdef\n" * 9000)


def _over_quota(stage: Stage) -> Sequence[Mail]:
    return stage.submit({"dora@example.com": "bounced"}, body="0123456789abcdef\n" * 500)


def _no_lmtp(stage: Stage) -> Sequence[Mail]:
    stage.without_lmtp()
    return stage.submit({"bob@example.com": "waiting"})


def _no_auth(stage: Stage) -> Sequence[Mail]:
    with stage.smtp() as session:
        stage.lab.engine.stop(stage.container("dovecot"))
        with pytest.raises(smtplib.SMTPAuthenticationError, match="454"):
            session.login(ALICE, stage.lab.password(ALICE).reveal())
    return ()


CASES = (
    Case("wrong-password", "world", ("said: 535 5.7.8 ",), _to("x@wrong.test", "waiting")),
    Case("starttls-required", "world", ("said: 530 5.7.0 Must issue",), _to("x@plain.test", "bounced")),
    Case("certificate-issuer-unknown", "world", ("unknown.provider", "untrusted"), _to("x@unknown.test", "waiting")),
    Case("certificate-for-another-name", "world", ("other.provider.test", "num=62"), _to("x@other.test", "waiting")),
    Case("certificate-not-verified", "world", ("<x@other.test>", "dsn=4.7.5"), _to("x@other.test", "waiting")),
    Case("tls-from-the-start", "world", ("SMTPS wrappermode",), _to("x@wrapped.test", "waiting")),
    Case("tls-handshake-failed", "world", ("<x@old.test>", "Cannot start TLS"), _to("x@old.test", "waiting")),
    Case("login-required", "world", ("<x@nobody.test>", "not logged in"), _to("x@nobody.test", "bounced")),
    Case("relay-denied", "world", ("said: 554 5.7.1 ",), _to("x@mx.test", "bounced", "out@elsewhere.test")),
    Case(
        "sender-not-owned",
        "world",
        ("553 5.7.1 ", "owned"),
        _to("bob@example.com", "bounced", "x@elsewhere.test"),
    ),
    Case("taken-for-local", "world", ("unknown user: ", "nobody-here"), _to("nobody-here@own.test", "bounced")),
    Case("mailbox-unknown", "world", ("said: 550 5.1.1 ",), _to("nobody@example.com", "bounced")),
    Case("lab-closed", "world", ("said: 550 5.4.4 ",), _to("x@outside.test", "bounced")),
    Case("greylisted", "world", ("said: 450 4.2.0 ",), _to("grey@example.com", "waiting")),
    Case("too-large", "world", ("status=bounced (message size",), _too_large),
    Case("over-quota", "world", ("said: 552 5.2.2 ",), _over_quota),
    Case("too-many-hops", "world", ("dsn=5.4.0, status=bounced",), _too_many_hops),
    Case("too-many-connections", "world", ("<x@mx.test>", "421 4.7.0"), _too_many_connections),
    Case("too-many-deliveries", "world", ("<busy@example.com>", "said: 451 4.3.0"), too_many_deliveries),
    Case("connection-refused", "world", ("<x@refused.test>", "Connection refused"), _to("x@refused.test", "waiting")),
    Case("connection-timed-out", "world", ("<x@away.test>", "timed out"), _to("x@away.test", "waiting")),
    Case("port-25-blocked", "world", ("<x@blocked.test>", "timed out"), _to("x@blocked.test", "waiting")),
    Case("no-route", "world", ("<x@unreachable.test>", "192.0.2.1"), _to("x@unreachable.test", "waiting")),
    Case("name-not-resolved", "world", ("<x@unresolved.test>", "dsn=4.4"), _to("x@unresolved.test", "waiting")),
    Case("loops-to-itself", "world", ("<x@loop.test>", "dsn=5.4.6"), _to("x@loop.test", "bounced")),
    Case("password-not-for-applications", "world", ("said: 534-5.7.9 ",), _provider("x@applications.test", "waiting")),
    Case("tls-not-offered", "world", ("<x@no-tls.test>", "TLS is required"), _provider("x@no-tls.test", "waiting")),
    Case("no-common-mechanism", "world", ("<x@no-common.test>", "dsn="), _provider("x@no-common.test", "waiting")),
    Case("connection-lost", "world", ("<x@hangs-up.test>", "dsn=4.4.2"), _provider("x@hangs-up.test", "waiting")),
    Case("map-missing", "world", (f"error: open database {MAP}",), _map_missing, _map_back),
    Case("lookup-failed", "world", ("<bob@example.com>", "local data error"), _map_missing, _map_back),
    Case("ca-file-unusable", "world", ("cannot load Certification",), _no_ca, _ca_back),
    Case("refused-by-rule", "world", ("reject: header To:",), _to("ruled@example.com", "bounced")),
    Case("map-stale", "world", ("warning: database", MAP, "older"), _map_stale, _map_fresh),
    Case("no-password-map", "neglected", ("fatal: specify a password table",), _no_map, _map_again),
    Case("mailbox-server-down", "world", ("<bob@example.com>", "dsn=4.4.1"), _no_lmtp, Stage.with_lmtp),
    Case("no-sasl-mechanism", "neglected", ("<bob@example.com>", "dsn=4.7.0"), _to("bob@example.com", "waiting")),
    Case("certificate-expired", "neglected", ("expired.provider", "verification"), _to("x@expired.test", "waiting")),
    Case("no-space", "neglected", ("said: 452 4.3.1 ",), _to("x@full.test", "waiting", "out@elsewhere.test")),
    Case("tls-key-unreadable", "neglected", ("there-is-none.pem",), _no_key),
    Case("authentication-unavailable", "neglected", ("SASL PLAIN authentication failed", "=(unavailable)"), _no_auth),
)
