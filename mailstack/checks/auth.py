"""Authentication: which users log in, on which ports, and never without TLS."""

from __future__ import annotations

import imaplib
import poplib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BufferedRWPair

from mailstack.checks import Family
from mailstack.checks.bench import Bench
from mailstack.checks.judging import NotApplicable, Unmet, expect
from mailstack.checks.listeners import STRANGER, envelope_reply
from mailstack.protocol.smtp import Smtp, as_text, base64_text
from mailstack.roles import Role

family = Family("auth")

_WRONG_PASSWORD = "not-the-password"
_TIMEOUT_SECONDS = 30.0
_MECHANISMS, _SUBMISSION = ("PLAIN", "LOGIN"), (587, 465)


def _plain(user: str, password: str) -> str:
    return "AUTH PLAIN " + base64_text(f"\0{user}\0{password}")  # RFC 4616


def _auth_reply(session: Smtp, mechanism: str, user: str, password: str) -> tuple[int, str]:
    """Send AUTH by one mechanism (RFC 4954, section 4) in a session, and end it; return the last reply."""
    with session:
        if mechanism == "PLAIN":
            return session.command(_plain(user, password))
        code, text = session.command("AUTH LOGIN")
        for word in (user, password):
            if code == 334:
                code, text = session.command(base64_text(word))
        return code, text


@family(
    "starttls-first",
    "587 offers STARTTLS, and no AUTH before it",
    "RFC 4954, section 4; postconf(5), smtpd_tls_auth_only",
)
def starttls_comes_first(bench: Bench) -> str:
    with bench.smtp(587, tls="none") as session:
        offered = sorted(session.esmtp_features)
    return expect("starttls" in offered and "auth" not in offered, f"EHLO in the clear offers: {' '.join(offered)}")


@family("clear-refused", "587 refuses AUTH before STARTTLS", "RFC 4954, section 4 (530, 538); RFC 3207, section 4")
def auth_in_the_clear_is_refused(bench: Bench) -> str:
    with bench.smtp(587, tls="none") as session:
        code, text = session.command(_plain(bench.alice, _WRONG_PASSWORD))
    return expect(code in (503, 530, 538), f"AUTH PLAIN in the clear: {code} {text}")


@family(
    "none-on-25",
    "25 offers no AUTH, neither in the clear nor under TLS",
    "RFC 6409, section 4.3; postconf(5), smtpd_sasl_auth_enable",
)
def no_auth_on_25(bench: Bench) -> str:
    with bench.smtp(25) as clear, bench.smtp(25, tls="starttls") as secure:
        for name, session in (("in the clear", clear), ("under TLS", secure)):
            offered = session.esmtp_features.get("auth")
            expect(offered is None, f"EHLO {name} offers AUTH {offered}")
        code, text = secure.command(_plain(bench.alice, _WRONG_PASSWORD))
    expect(code == 503, f"AUTH PLAIN under TLS: {code} {text}")
    return f"no AUTH in either EHLO; AUTH PLAIN under TLS: {code} {text}"


@family(
    "{mechanism}-{port}",
    "AUTH {mechanism} with the right password: 235 ({port})",
    "RFC 4954, section 6",
    port=_SUBMISSION,
    mechanism=_MECHANISMS,
)
def right_password_is_accepted(bench: Bench, port: int, mechanism: str) -> str:
    code, text = _auth_reply(bench.smtp(port), mechanism, bench.alice, bench.password(bench.alice).reveal())
    return expect(code == 235, f"{code} {text}")


@family(
    "wrong-{mechanism}-{port}",
    "AUTH {mechanism} with a wrong password: 535 ({port})",
    "RFC 4954, section 6",
    port=_SUBMISSION,
    mechanism=_MECHANISMS,
)
def wrong_password_is_refused(bench: Bench, port: int, mechanism: str) -> str:
    code, text = _auth_reply(bench.smtp(port), mechanism, bench.alice, _WRONG_PASSWORD)
    return expect(code == 535, f"{code} {text}")


@family(
    "unknown-user",
    "AUTH as an unknown user gets the same reply as a wrong password: 535",
    "RFC 4954, section 6",
)
def unknown_user_is_refused_alike(bench: Bench) -> str:
    code, text = _auth_reply(bench.smtp(587), "PLAIN", f"nobody-{bench.alice}", _WRONG_PASSWORD)
    return expect(code == 535, f"{code} {text}")


@family(
    "foreign-sender",
    "another user's address as envelope sender: 553",
    "RFC 6409, section 6.1; postconf(5), smtpd_sender_login_maps",
)
def address_of_another_is_refused(bench: Bench) -> str:
    code, text = envelope_reply(bench.logged_in(587, bench.alice), bench.bob, bench.alice)
    return expect(code == 553, f"{bench.alice} as <{bench.bob}>: {code} {text}")


@family("own-alias", "a user's own alias as envelope sender is accepted", "postconf(5), smtpd_sender_login_maps")
def own_alias_is_accepted(bench: Bench) -> str:
    own = bench.lab.definition().owned_by(bench.alice)
    if not own:
        raise NotApplicable(f"no alias leads to {bench.alice}")
    code, text = envelope_reply(bench.logged_in(587, bench.alice), own[0], bench.bob)
    return expect(code == 250, f"{bench.alice} as <{own[0]}>: {code} {text}")


@family(
    "forged-on-25",
    "without authentication, a user of the lab as envelope sender on 25: 553",
    "postconf(5), reject_sender_login_mismatch",
)
def forged_sender_on_25_is_refused(bench: Bench) -> str:
    code, text = envelope_reply(bench.smtp(25), bench.alice, bench.bob)
    return expect(code == 553, f"<{bench.alice}> without AUTH: {code} {text}")


@family(
    "no-relay-25",
    "25 does not relay: a recipient outside is refused",
    "RFC 5321, section 3.6.2; postconf(5), smtpd_relay_restrictions",
)
def no_relaying_on_25(bench: Bench) -> str:
    code, text = envelope_reply(bench.smtp(25), STRANGER, "someone@elsewhere.test")
    return expect(code == 554 and "5.7.1" in text, f"{code} {text}")


@family("required-{port}", "{port} takes no mail without AUTH", "RFC 6409, section 4.3", port=_SUBMISSION)
def submission_requires_auth(bench: Bench, port: int) -> str:
    code, text = envelope_reply(bench.smtp(port), STRANGER, bench.alice)
    return expect(500 <= code < 600, f"{code} {text}")


# ── Dovecot ────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _plaintext_session(bench: Bench, port: int) -> Iterator[BufferedRWPair]:
    """Open a plain-text session with Dovecot and skip its greeting."""
    with bench.dial(bench.lab.defined.name(Role.STORE), port)() as connection, connection.makefile("rwb") as lines:
        _read_line(lines)
        yield lines


def _read_line(lines: BufferedRWPair) -> str:
    if line := lines.readline(8192):
        return line.decode(errors="replace").rstrip()
    raise Unmet("the server closed the connection")


def _command(lines: BufferedRWPair, command: str, *, until: str) -> list[str]:
    """Send a command; return the lines of the reply, up to the one that begins with `until` or that refuses."""
    lines.write(command.encode() + b"\r\n")
    lines.flush()
    replies = [_read_line(lines)]
    while not replies[-1].startswith((until, "-ERR")):
        replies.append(_read_line(lines))
    return replies


@family(
    "imap-clear", "IMAP refuses a password in the clear", "RFC 3501, section 6.2.3 (LOGINDISABLED); RFC 8314, section 3"
)
def imap_in_the_clear_is_refused(bench: Bench) -> str:
    with _plaintext_session(bench, 143) as lines:
        capabilities = _command(lines, "a CAPABILITY", until="a ")[0]
        reply = _command(lines, f'b LOGIN "{bench.alice}" "{_WRONG_PASSWORD}"', until="b ")[-1]
    expect("LOGINDISABLED" in capabilities and "AUTH=" not in capabilities, capabilities)
    return expect(reply.startswith(("b NO [PRIVACYREQUIRED]", "b BAD")), reply)


@family("pop3-clear", "POP3 refuses a password in the clear", "RFC 2595, section 4; RFC 8314, section 3")
def pop3_in_the_clear_is_refused(bench: Bench) -> str:
    with _plaintext_session(bench, 110) as lines:
        capabilities = _command(lines, "CAPA", until=".")
        offered = "USER" in capabilities or any(each.startswith("SASL ") for each in capabilities)
        expect(not offered, " ".join(capabilities))
        reply = _command(lines, f"USER {bench.alice}", until="+OK")[-1]
    return expect(reply.startswith("-ERR"), f"USER in the clear: {reply}")


def _imap_login(bench: Bench, user: str, password: str) -> str:
    """Log in over IMAP; return the reply's status. Raises imaplib.IMAP4.error when the login is refused."""
    endpoint = bench.lab.endpoints["imaps"]
    context = bench.lab_context
    with imaplib.IMAP4_SSL(endpoint.host, endpoint.port, ssl_context=context, timeout=_TIMEOUT_SECONDS) as session:
        return session.login(user, password)[0]


def _pop3_login(bench: Bench, user: str, password: str) -> str:
    """Log in over POP3; return the reply. Raises poplib.error_proto when the login is refused."""
    endpoint = bench.lab.endpoints["pop3s"]
    session = poplib.POP3_SSL(endpoint.host, endpoint.port, context=bench.lab_context, timeout=_TIMEOUT_SECONDS)
    with closing(session):
        session.user(user)
        return session.pass_(password).decode(errors="replace")


_LOGINS = {"IMAP": _imap_login, "POP3": _pop3_login}


@family(
    "{protocol}-login",
    "{protocol} accepts the right password, and no other",
    "RFC 3501, section 6.2.3; RFC 1939, section 7",
    protocol=tuple(_LOGINS),
)
def mailbox_opens_by_the_right_password_alone(bench: Bench, protocol: str) -> str:
    login = _LOGINS[protocol]
    try:
        login(bench, bench.alice, _WRONG_PASSWORD)
    except (imaplib.IMAP4.error, poplib.error_proto) as error:
        refusal = as_text(error.args[0])
    else:
        raise Unmet("a wrong password was accepted")
    try:
        return f"wrong: {refusal}; right: {login(bench, bench.alice, bench.password(bench.alice).reveal())}"
    except (imaplib.IMAP4.error, poplib.error_proto) as error:
        raise Unmet(f"the right password was refused: {as_text(error.args[0])}") from None


@family("relay-user", "the relay's user may submit mail, and has no mailbox", "docs/decisions.md, accounts")
def relay_user_has_no_mailbox(bench: Bench) -> str:
    user, password = bench.relay
    code, text = _auth_reply(bench.smtp(587), "PLAIN", user, password.reveal())
    expect(code == 235, f"AUTH on 587: {code} {text}")
    try:
        _imap_login(bench, user, password.reveal())
    except imaplib.IMAP4.error as error:
        return f"587: {code}; IMAP: {as_text(error.args[0])}"
    raise Unmet(f"{user} can log in to a mailbox over IMAP")
