"""SMTP client (RFC 5321), and submission (RFC 6409).

A `Dial` opens the connection: from this machine to a published port, or from inside a container.
"""

from __future__ import annotations

import base64
import smtplib
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.message import EmailMessage
from typing import Literal

from mailstack import library_errors
from mailstack.errors import CheckFailed
from mailstack.message.outgoing import Outgoing, hand_over
from mailstack.model import Endpoint
from mailstack.secret import Secret, blot_error

Dial = Callable[[], socket.socket]
Tls = Literal["none", "starttls", "implicit"]

# The time limit for one answer, in seconds; generous, since machines in CI are slow. The caller has a deadline, too.
ANSWER_SECONDS = 30.0


def dial_to(endpoint: Endpoint) -> Dial:
    """Return a Dial to an endpoint on this machine's network."""

    def dial() -> socket.socket:
        return socket.create_connection((endpoint.host, endpoint.port), timeout=ANSWER_SECONDS)

    return dial


def greets(dial: Dial, farewell: bytes) -> bool:
    """Whether a server sends a greeting; `farewell` is sent before the connection is closed."""
    try:
        with dial() as connection:
            greeting = bool(connection.recv(1024))
            connection.sendall(farewell)
            return greeting
    except OSError:
        return False


class Smtp(smtplib.SMTP):
    """An SMTP session (RFC 5321) over any Dial, with or without TLS. The certificate is verified against `name`."""

    def __init__(
        self,
        dial: Dial,
        *,
        name: str,
        tls: Tls = "none",
        context: ssl.SSLContext | None = None,
        helo: str = "client.test",
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        """`seconds` is the time limit for each reply."""
        self._dial, self._tls, self._context = dial, tls, context
        super().__init__(local_hostname=helo, timeout=seconds)
        self._host = name  # smtplib verifies this name in the certificate
        code, banner = self.connect(name, 25)
        self.banner = f"{code} {banner.decode(errors='replace')}"
        if code != 220:
            self.close()
            raise smtplib.SMTPConnectError(code, banner)
        if tls == "starttls":
            try:
                self.ehlo_or_helo_if_needed()
                self.starttls(context=context)
                self.ehlo()
            except BaseException:
                self.close()  # nobody else can: there is no session yet
                raise
        # Without TCP_NODELAY, the end of a long mail would wait up to 40 ms for a delayed acknowledgement (RFC 1122,
        # 4.2.3.2). It is not set earlier: an EHLO sent before the server's last message of the handshake would have its
        # reply delayed in the same way.
        if self.sock and self.sock.family != socket.AF_UNIX:  # a Dialer's is AF_UNIX
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = self._dial()
        connection.settimeout(timeout)
        if self._tls == "implicit" and self._context:
            return self._context.wrap_socket(connection, server_hostname=host)
        return connection

    def login(self, user: str, password: str, *, initial_response_ok: bool = True) -> tuple[int, bytes]:
        """Log in, also with characters beyond ASCII (RFC 4616: UTF-8), which smtplib does not support.

        Raises smtplib.SMTPAuthenticationError, SMTPNotSupportedError.
        """
        if (user + password).isascii():
            return super().login(user, password, initial_response_ok=initial_response_ok)
        self.ehlo_or_helo_if_needed()
        offered = self.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in offered:
            code, text = self.docmd("AUTH PLAIN", base64_text(f"\0{user}\0{password}"))
        elif "LOGIN" in offered:
            code, text = self.docmd("AUTH LOGIN", base64_text(user))
            if code == 334:
                code, text = self.docmd(base64_text(password))
        else:
            raise smtplib.SMTPNotSupportedError("neither AUTH PLAIN nor AUTH LOGIN is offered")
        if code != 235:
            raise smtplib.SMTPAuthenticationError(code, text)
        return code, text

    def command(self, line: str) -> tuple[int, str]:
        """Send one line; return the code and text of the reply."""
        code, text = self.docmd(line)
        return code, text.decode(errors="replace")

    def transaction(self, sender: str, recipient: str, data: Sequence[bytes], size: int) -> tuple[int, str]:
        """Send a mail to one recipient in as few writes as the server allows; return the decisive reply.

        `data` is in pieces, with dots doubled and with the final line; `size` is for RFC 1870. The commands are sent as
        one group if the server supports it (RFC 2920). Raises OSError, smtplib.SMTPException.
        """
        if not self.sock:
            raise smtplib.SMTPServerDisconnected("the connection was closed")
        declared = f" SIZE={size}" if self.has_extn("size") else ""
        commands = (f"MAIL FROM:<{sender}>{declared}\r\n", f"RCPT TO:<{recipient}>\r\n", "DATA\r\n")
        together = self.has_extn("pipelining")
        if together:
            self.sock.sendall("".join(commands).encode())
        refusal = None
        code, text = 0, b""
        for command in commands:
            if not together:
                self.sock.sendall(command.encode())
            code, text = self.getreply()
            if code >= 400:
                refusal = refusal or (code, text)
                if code == 421 or not together:  # 421: the server closes the connection
                    break
        if refusal is None or code == 354:
            # After 354 a message must follow, even if it is empty and has no recipient (RFC 2920, section 3.1).
            self.sock.sendall(b".\r\n" if refusal else b"".join(data))
            code, text = self.getreply()
        elif code != 421:
            self.rset()
        code, text = refusal or (code, text)
        return code, text.decode(errors="replace")


def base64_text(text: str) -> str:
    """Return `text`, encoded as UTF-8, in Base64."""
    return base64.b64encode(text.encode()).decode()


def as_text(reply: object) -> str:
    """Return a server's words in an error of smtplib, imaplib or poplib, some of which have bytes."""
    return reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)


def size_limit(dial: Dial) -> int:
    """Return the server's limit for a mail in octets, from its reply to EHLO (RFC 1870); 0 if it names none."""
    with suppress(smtplib.SMTPException, OSError), Smtp(dial, name="localhost") as session:
        session.ehlo()
        limit = session.esmtp_features.get("size", "")
        return int(limit) if limit.isdecimal() else 0
    return 0


def submit(
    dial: Dial,
    context: ssl.SSLContext,
    user: str,
    password: Secret,
    message: EmailMessage | Outgoing,
    recipients: Sequence[str],
    *,
    sender: str | None = None,
    tls: Tls = "starttls",
    name: str = "localhost",
    seconds: float = ANSWER_SECONDS,
) -> None:
    """Submit a message with authentication (RFC 6409). Raises CheckFailed with the server's own words if refused.

    `sender` is the envelope sender; the default is the address in From. `seconds` is the time limit for each reply.
    """
    outgoing = message if isinstance(message, Outgoing) else Outgoing(message)
    sender = str(message["From"]) if sender is None and isinstance(message, EmailMessage) else sender or ""
    try:
        with Smtp(dial, name=name, tls=tls, context=context, seconds=seconds) as session:
            session.login(user, password.reveal())
            refused = hand_over(session, sender, recipients, outgoing)
    except (smtplib.SMTPException, OSError) as error:
        raise blot_error(SMTP_ERRORS.of(error) or error, password) from None
    if refused:
        raise _refused_recipients(smtplib.SMTPRecipientsRefused(refused))


def _refused_mail(error: Exception) -> CheckFailed:
    text = as_text(getattr(error, "smtp_error", b""))
    return CheckFailed(f"the server refused the mail: {getattr(error, 'smtp_code', '')} {text}")


def _refused_recipients(error: Exception) -> CheckFailed:
    refused: dict[str, tuple[int, bytes]] = getattr(error, "recipients", {})
    replies = "; ".join(f"{code} {text.decode(errors='replace')}" for code, text in refused.values())
    return CheckFailed(f"the server refused {', '.join(refused)}: {replies}")


SMTP_ERRORS = library_errors.Table(
    {
        _refused_mail: library_errors.SMTP_REFUSED,
        _refused_recipients: library_errors.SMTP_RECIPIENTS,
        lambda error: CheckFailed(f"the mail could not be submitted: {error}"): library_errors.SMTP_BROKEN,
    }
)
