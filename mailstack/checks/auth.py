"""Who gets in, as whom, and never in the clear."""

from __future__ import annotations

import base64
import contextlib
import socket
from collections.abc import Iterator

from mailstack.checks import Family, NotApplicable, Unmet, expect
from mailstack.checks.bench import Bench
from mailstack.mail import Smtp

family = Family("auth")

_WRONG = "not-the-password"


def _plain(user: str, password: str) -> str:
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()


def _auth(session: Smtp, mechanism: str, user: str, password: str) -> tuple[int, str]:
    """AUTH by one mechanism (RFC 4954, section 4): the server's last reply."""
    if mechanism == "PLAIN":  # RFC 4616
        return session.command(f"AUTH PLAIN {_plain(user, password)}")
    code, text = session.command("AUTH LOGIN")
    for word in (user, password):
        if code != 334:
            break
        code, text = session.command(base64.b64encode(word.encode()).decode())
    return code, text


@family(
    "starttls-first",
    "587 offers STARTTLS, and no AUTH before it",
    "RFC 4954, section 4; postconf(5), smtpd_tls_auth_only",
)
def _(bench: Bench) -> str:
    with bench.smtp(587, tls="none") as session:
        offered = sorted(session.esmtp_features)
        expect("starttls" in offered and "auth" not in offered, f"EHLO in the clear offers: {' '.join(offered)}")
        return f"EHLO in the clear offers: {' '.join(offered)}"


@family("clear-refused", "587 refuses AUTH before STARTTLS", "RFC 4954, section 4 (530, 538); RFC 3207, section 4")
def _(bench: Bench) -> str:
    with bench.smtp(587, tls="none") as session:
        code, text = session.command(f"AUTH PLAIN {_plain(bench.alice, _WRONG)}")
        expect(code in (503, 530, 538), f"AUTH PLAIN in the clear: {code} {text}")
        return f"AUTH PLAIN in the clear: {code} {text}"


@family(
    "none-on-25",
    "25 offers no AUTH, neither in the clear nor under TLS",
    "RFC 6409, section 4.3; postconf(5), smtpd_sasl_auth_enable",
)
def _(bench: Bench) -> str:
    with bench.smtp(25) as clear, bench.smtp(25, tls="starttls") as secure:
        for name, session in (("in the clear", clear), ("under TLS", secure)):
            expect(
                "auth" not in session.esmtp_features, f"EHLO {name} offers AUTH {session.esmtp_features.get('auth')}"
            )
        code, text = secure.command(f"AUTH PLAIN {_plain(bench.alice, _WRONG)}")
        expect(code == 503, f"AUTH PLAIN under TLS: {code} {text}")
        return f"no AUTH in either EHLO; AUTH PLAIN under TLS: {code} {text}"


def _right(port: int, mechanism: str) -> None:
    @family(
        f"{mechanism.lower()}-{port}", f"AUTH {mechanism} with the right password: 235 ({port})", "RFC 4954, section 6"
    )
    def _(bench: Bench) -> str:
        with bench.smtp(port) as session:
            code, text = _auth(session, mechanism, bench.alice, bench.password(bench.alice).reveal())
            expect(code == 235, f"{code} {text}")
            return f"{code} {text}"


def _refused(port: int, mechanism: str) -> None:
    @family(
        f"wrong-{mechanism.lower()}-{port}",
        f"AUTH {mechanism} with a wrong password: 535 ({port})",
        "RFC 4954, section 6",
    )
    def _(bench: Bench) -> str:
        with bench.smtp(port) as session:
            code, text = _auth(session, mechanism, bench.alice, _WRONG)
            expect(code == 535, f"{code} {text}")
            return f"{code} {text}"


for _port in (587, 465):
    for _mechanism in ("PLAIN", "LOGIN"):
        _right(_port, _mechanism)
        _refused(_port, _mechanism)


@family(
    "unknown-user", "AUTH as a user who does not exist is answered like a wrong password: 535", "RFC 4954, section 6"
)
def _(bench: Bench) -> str:
    with bench.smtp(587) as session:
        code, text = _auth(session, "PLAIN", f"nobody-{bench.alice}", _WRONG)
        expect(code == 535, f"{code} {text}")
        return f"{code} {text}"


def _envelope(session: Smtp, sender: str, recipient: str) -> tuple[int, str]:
    """MAIL and RCPT: the reply that refuses, or the last."""
    code, text = session.command(f"MAIL FROM:<{sender}>")
    return session.command(f"RCPT TO:<{recipient}>") if code == 250 else (code, text)


@family(
    "foreign-sender", "another's address as sender: 553", "RFC 6409, section 6.1; postconf(5), smtpd_sender_login_maps"
)
def _(bench: Bench) -> str:
    with bench.logged_in(587, bench.alice) as session:
        code, text = _envelope(session, bench.bob, bench.alice)
        expect(code == 553, f"{bench.alice} as <{bench.bob}>: {code} {text}")
        return f"{bench.alice} as <{bench.bob}>: {code} {text}"


@family("own-alias", "one's own alias as sender is accepted", "postconf(5), smtpd_sender_login_maps")
def _(bench: Bench) -> str:
    own = bench.lab.definition().owned_by(bench.alice)
    if not own:
        raise NotApplicable(f"no alias leads to {bench.alice}")
    with bench.logged_in(587, bench.alice) as session:
        code, text = _envelope(session, own[0], bench.bob)
        expect(code == 250, f"{bench.alice} as <{own[0]}>: {code} {text}")
        return f"{bench.alice} as <{own[0]}>: {code} {text}"


@family(
    "forged-on-25",
    "without authentication, a user of the lab as sender on 25: 553",
    "postconf(5), reject_sender_login_mismatch",
)
def _(bench: Bench) -> str:
    with bench.smtp(25) as session:
        code, text = _envelope(session, bench.alice, bench.bob)
        expect(code == 553, f"<{bench.alice}> without AUTH: {code} {text}")
        return f"<{bench.alice}> without AUTH: {code} {text}"


@family(
    "no-relay-25",
    "25 does not relay: a recipient outside is refused",
    "RFC 5321, section 3.6.2; postconf(5), smtpd_relay_restrictions",
)
def _(bench: Bench) -> str:
    with bench.smtp(25) as session:
        code, text = _envelope(session, "someone@outside.test", "someone@elsewhere.test")
        expect(code == 554 and "5.7.1" in text, f"{code} {text}")
        return f"{code} {text}"


def _submission_needs_auth(port: int) -> None:
    @family(f"required-{port}", f"{port} takes no mail without AUTH", "RFC 6409, section 4.3")
    def _(bench: Bench) -> str:
        with bench.smtp(port) as session:
            code, text = _envelope(session, "someone@outside.test", bench.alice)
            expect(500 <= code < 600, f"{code} {text}")
            return f"{code} {text}"


for _port in (587, 465):
    _submission_needs_auth(_port)


class _Lines:
    """A line-based session with Dovecot, in the clear."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        self.greeting = self.read()

    def read(self) -> str:
        line = self._file.readline(8192).decode(errors="replace")
        if not line:
            raise Unmet("the server closed the connection")
        return line.rstrip()

    def ask(self, line: str, *, until: str) -> list[str]:
        """Send a line; the reply's lines, up to the one that begins with `until` or refuses."""
        self._connection.sendall(line.encode() + b"\r\n")
        lines = [self.read()]
        while not lines[-1].startswith((until, "-ERR")):
            lines.append(self.read())
        return lines


@contextlib.contextmanager
def _clear(bench: Bench, port: int) -> Iterator[_Lines]:
    with bench.dial("dovecot", port)() as connection:
        yield _Lines(connection)


@family(
    "imap-clear", "IMAP refuses a password in the clear", "RFC 3501, section 6.2.3 (LOGINDISABLED); RFC 8314, section 3"
)
def _(bench: Bench) -> str:
    with _clear(bench, 143) as session:
        capabilities = session.ask("a CAPABILITY", until="a ")[0]
        reply = session.ask(f'b LOGIN "{bench.alice}" "{_WRONG}"', until="b ")[-1]
        expect("LOGINDISABLED" in capabilities and "AUTH=" not in capabilities, capabilities)
        expect(reply.startswith("b NO [PRIVACYREQUIRED]") or reply.startswith("b BAD"), reply)
        return reply


@family("pop3-clear", "POP3 refuses a password in the clear", "RFC 2595, section 4; RFC 8314, section 3")
def _(bench: Bench) -> str:
    with _clear(bench, 110) as session:
        capabilities = session.ask("CAPA", until=".")
        expect(
            "USER" not in capabilities and not any(c.startswith("SASL ") for c in capabilities), " ".join(capabilities)
        )
        reply = session.ask(f"USER {bench.alice}", until="+OK")[-1]
        expect(reply.startswith("-ERR"), f"USER in the clear: {reply}")
        return reply


@family("imap-login", "IMAP lets a user in by the right password alone", "RFC 3501, section 6.2.3")
def _(bench: Bench) -> str:
    import imaplib

    endpoint = bench.lab.endpoints["imaps"]
    with imaplib.IMAP4_SSL(endpoint.host, endpoint.port, ssl_context=bench.trusting, timeout=30) as session:
        try:
            session.login(bench.alice, _WRONG)
        except imaplib.IMAP4.error as error:
            refusal = str(error.args[0])
        else:
            raise Unmet("a wrong password was accepted")
        kind, reply = session.login(bench.alice, bench.password(bench.alice).reveal())
        expect(kind == "OK", f"the right password: {kind} {reply!r}")
        return f"wrong: {refusal}; right: {kind}"


@family("pop3-login", "POP3 lets a user in by the right password alone", "RFC 1939, section 7")
def _(bench: Bench) -> str:
    import poplib

    def attempt(password: str) -> bytes:
        endpoint = bench.lab.endpoints["pop3s"]
        session = poplib.POP3_SSL(endpoint.host, endpoint.port, context=bench.trusting, timeout=30)
        try:
            session.user(bench.alice)
            return session.pass_(password)
        finally:
            session.close()

    try:
        attempt(_WRONG)
    except poplib.error_proto as error:
        refusal = error.args[0].decode(errors="replace")
    else:
        raise Unmet("a wrong password was accepted")
    try:
        welcome = attempt(bench.password(bench.alice).reveal()).decode(errors="replace")
    except poplib.error_proto as error:
        raise Unmet(f"the right password: {error.args[0].decode(errors='replace')}") from None
    return f"wrong: {refusal}; right: {welcome}"


@family("relay-user", "the relay's user may submit mail, and has no mailbox", "docs/architecture.md, accounts")
def _(bench: Bench) -> str:
    import imaplib

    user, password = bench.relay
    with bench.smtp(587) as session:
        code, text = _auth(session, "PLAIN", user, password.reveal())
        expect(code == 235, f"AUTH on 587: {code} {text}")
    endpoint = bench.lab.endpoints["imaps"]
    with imaplib.IMAP4_SSL(endpoint.host, endpoint.port, ssl_context=bench.trusting, timeout=30) as box:
        try:
            box.login(user, password.reveal())
        except imaplib.IMAP4.error as error:
            return f"587: {code}; IMAP: {error.args[0]}"
    raise Unmet(f"{user} was let into a mailbox")
