"""SMTP and IMAP from the client's side: the only module that opens sockets to the mail servers.

A `Dial` makes the connection, from this machine to a published port or from inside a container; what is spoken over
it is the same.
"""

from __future__ import annotations

import base64
import functools
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.policy import EmailPolicy, Policy, default
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mailstack import foreign, imap, news
from mailstack.errors import CheckFailed, DeadlinePassed, MailstackError
from mailstack.model import Deadline, Endpoint
from mailstack.outgoing import Outgoing, hand_over
from mailstack.secret import Secret, blot

if TYPE_CHECKING:
    from imap_tools import BaseMailBox, MailMessage

Dial = Callable[[], socket.socket]
Tls = Literal["none", "starttls", "implicit"]

# How long one answer may take: generous, since machines in CI are slow; the caller's deadline is what ends a wait.
ANSWER_SECONDS = 30.0


def to(endpoint: Endpoint) -> Dial:
    """Dial an address of this machine's network."""

    def dial() -> socket.socket:
        return socket.create_connection((endpoint.host, endpoint.port), timeout=ANSWER_SECONDS)

    return dial


def greets(dial: Dial, farewell: bytes) -> bool:
    """Whether a server greets who dials it; takes leave with `farewell`."""
    try:
        with dial() as connection:
            heard = bool(connection.recv(1024))
            connection.sendall(farewell)
            return heard
    except OSError:
        return False


def tls_context(ca_file: Path | None = None, ca: str | None = None) -> ssl.SSLContext:
    """A client that trusts the lab's CA alone, and wants TLS 1.2 or newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=str(ca_file) if ca_file else None, cadata=ca)
    return context


@functools.lru_cache(maxsize=8)
def kept_context(ca: str) -> ssl.SSLContext:
    """The same, made once for each CA: who gets it leaves it as it is."""
    return tls_context(ca=ca)


class Smtp(smtplib.SMTP):
    """An SMTP session (RFC 5321) over any Dial, with TLS as asked for; the name is verified in the certificate."""

    def __init__(
        self,
        dial: Dial,
        *,
        name: str,
        tls: Tls = "none",
        context: ssl.SSLContext | None = None,
        helo: str = "client.test",
    ) -> None:
        self._dial, self._tls, self._context = dial, tls, context
        super().__init__(local_hostname=helo, timeout=ANSWER_SECONDS)
        self._host = name  # what smtplib verifies in the certificate
        code, banner = self.connect(name, 25)
        self.banner = f"{code} {banner.decode(errors='replace')}"
        if code != 220:
            self.close()
            raise smtplib.SMTPConnectError(code, banner)
        if tls == "starttls":
            self.ehlo_or_helo_if_needed()
            self.starttls(context=context)
            self.ehlo()
        # Only now: the end of a long mail would wait up to 40 ms for a delayed acknowledgement (RFC 1122, 4.2.3.2). An
        # EHLO that does not wait for the server's last word of the handshake has its reply wait for just that.
        if self.sock and self.sock.family != socket.AF_UNIX:  # which a Dialer's is
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = self._dial()
        connection.settimeout(timeout)
        if self._tls == "implicit" and self._context:
            return self._context.wrap_socket(connection, server_hostname=host)
        return connection

    def login(self, user: str, password: str, *, initial_response_ok: bool = True) -> tuple[int, bytes]:
        """Log in, also with characters beyond ASCII (RFC 4616: UTF-8), for which smtplib has no way.

        Raises smtplib.SMTPAuthenticationError, SMTPNotSupportedError.
        """
        if (user + password).isascii():
            return super().login(user, password, initial_response_ok=initial_response_ok)
        self.ehlo_or_helo_if_needed()
        offered = self.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in offered:
            code, text = self.docmd("AUTH PLAIN", _base64(f"\0{user}\0{password}"))
        elif "LOGIN" in offered:
            code, text = self.docmd("AUTH LOGIN", _base64(user))
            if code == 334:
                code, text = self.docmd(_base64(password))
        else:
            raise smtplib.SMTPNotSupportedError("neither AUTH PLAIN nor AUTH LOGIN is offered")
        if code != 235:
            raise smtplib.SMTPAuthenticationError(code, text)
        return code, text

    def command(self, line: str) -> tuple[int, str]:
        """Send one line, and give the reply's code and text."""
        code, text = self.docmd(line)
        return code, text.decode(errors="replace")

    def transaction(self, sender: str, recipient: str, data: Sequence[bytes], size: int) -> tuple[int, str]:
        """A mail to one recipient, in as few writes as the server allows; the reply that decided over it.

        `data` is in pieces, with dots doubled and the line that ends it; `size` is for RFC 1870. The commands go out as
        one group where the server offers that (RFC 2920). Raises OSError, smtplib.SMTPException.
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
                if code == 421 or not together:  # 421: the server hangs up
                    break
        if refusal is None or code == 354:
            # After 354 there is a mail to be sent, if only an empty one to nobody (RFC 2920, section 3.1).
            self.sock.sendall(b".\r\n" if refusal else b"".join(data))
            code, text = self.getreply()
        elif code != 421:
            self.rset()
        code, text = refusal or (code, text)
        return code, text.decode(errors="replace")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def new_message(
    *,
    sender: str,
    to: Sequence[str],
    subject: str,
    body: str,
    html: str | None = None,
    mark: str | None = None,
    thread: Mapping[str, Sequence[str]] | None = None,
    message_id: str = "",
) -> EmailMessage:
    """A message with a date and an id of its own (RFC 5322, section 3.6.4); `mark` becomes part of a new one.

    `thread` is what an answer has more: In-Reply-To and References, each with its message ids.
    """
    import datetime

    message = EmailMessage(_policy())
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.datetime.now().astimezone())
    message["Message-ID"] = message_id or new_id(sender, mark)
    for name, ids in (thread or {}).items():
        message[name] = " ".join(ids)
    message.set_content(body)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


def new_id(sender: str, mark: str | None = None) -> str:
    """A new Message-ID for a mail of the sender's."""
    return make_msgid(mark, domain=sender.rpartition("@")[2] or "localhost")


def size_limit(dial: Dial) -> int:
    """The largest mail that a server takes, in octets, as it says itself (RFC 1870); 0 where it does not say."""
    with suppress(smtplib.SMTPException, OSError), Smtp(dial, name="localhost") as session:
        session.ehlo()
        said = session.esmtp_features.get("size", "")
        return int(said) if said.isdecimal() else 0
    return 0


def _policy() -> EmailPolicy[EmailMessage]:
    """How a message is written: message ids one to a line, since `email` makes encoded words of those over 76."""
    from email.headerregistry import BaseHeader, HeaderRegistry, UnstructuredHeader

    class Ids(UnstructuredHeader, BaseHeader):
        def fold(self, *, policy: Policy) -> str:
            return f"{self.name}: {f'{policy.linesep} '.join(self.split())}{policy.linesep}"

    registry = HeaderRegistry()
    for name in ("in-reply-to", "references"):
        registry.map_to_type(name, Ids)
    return default.clone(header_factory=registry)


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
) -> None:
    """Submit a message with authentication (RFC 6409); raises CheckFailed with the server's own words if refused.

    `sender` is what is in From, where it is not said.
    """
    outgoing = message if isinstance(message, Outgoing) else Outgoing(message)
    sender = str(message["From"]) if sender is None and isinstance(message, EmailMessage) else sender or ""
    try:
        with Smtp(dial, name=name, tls=tls, context=context) as session:
            session.login(user, password.reveal())
            refused = hand_over(session, sender, recipients, outgoing)
    except (smtplib.SMTPException, OSError) as error:
        raise _blotted(SMTP_ERRORS.of(error) or error, password) from None
    if refused:
        raise _refused_recipients(smtplib.SMTPRecipientsRefused(refused))


def _blotted(error: Exception, password: Secret) -> Exception:
    """Take the password out of what a server has said: it may have repeated it."""
    if isinstance(error, MailstackError):
        error.message, error.details = (blot(text, [password]) for text in (error.message, error.details))
    return error


def _refused_mail(error: Exception) -> CheckFailed:
    said = getattr(error, "smtp_error", b"")
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return CheckFailed(f"the server refused the mail: {getattr(error, 'smtp_code', '')} {text}")


def _refused_recipients(error: Exception) -> CheckFailed:
    refused: dict[str, tuple[int, bytes]] = getattr(error, "recipients", {})
    said_of = "; ".join(f"{code} {text.decode(errors='replace')}" for code, text in refused.values())
    return CheckFailed(f"the server refused {', '.join(refused)}: {said_of}")


SMTP_ERRORS = foreign.Table(
    {
        _refused_mail: foreign.SMTP_REFUSED,
        _refused_recipients: foreign.SMTP_RECIPIENTS,
        lambda error: CheckFailed(f"the mail could not be submitted: {error}"): foreign.SMTP_BROKEN,
    }
)


@contextmanager
def mailbox(endpoint: Endpoint, context: ssl.SSLContext, user: str, password: Secret) -> Iterator[BaseMailBox]:
    """A user's mailbox over IMAP with TLS from the start, with the inbox selected.

    Raises CheckFailed when it cannot be opened, HostError when the connection is lost while it is open, or the server
    refuses a command. What else is raised while it is open passes unchanged.
    """
    import imaplib

    from imap_tools.errors import ImapToolsError

    try:
        connection = imap.connect(endpoint, context, ANSWER_SECONDS)
    except (OSError, imaplib.IMAP4.error) as error:
        raise CheckFailed(f"IMAP at {endpoint.host}:{endpoint.port} cannot be reached: {error}") from None
    try:
        try:
            connection.login(user, password.reveal())
            yield connection
        except BaseException:
            with suppress(OSError):
                connection.client.shutdown()  # nothing more to say, perhaps nobody to say it to
            raise
        connection.logout()
    except (imaplib.IMAP4.error, ImapToolsError) as error:
        raise _blotted(imap.errors(endpoint, user).of(error) or error, password) from None


def find(box: BaseMailBox, message_id: str) -> list[MailMessage]:
    """The messages in the selected folder with this id (RFC 3501, SEARCH HEADER)."""
    from imap_tools import AND, H

    return list(box.fetch(AND(header=H("Message-ID", message_id)), mark_seen=False))


def wait_for(box: BaseMailBox, message_id: str, deadline: Deadline) -> MailMessage:
    """The first message with this id, as soon as it is there. Raises DeadlinePassed."""
    wait_until_there(box, message_id, deadline)
    return find(box, message_id)[0]


def wait_until_there(box: BaseMailBox, message_id: str, deadline: Deadline) -> str:
    """The UID of the first message with this id, as soon as it is there. Raises DeadlinePassed."""
    from imap_tools import AND, H

    while True:
        passed = deadline.passed()
        news.refresh(box)
        found = box.uids(AND(header=H("Message-ID", message_id)))
        if found:
            return found[0]
        if passed:
            raise DeadlinePassed(f"the mail {message_id} was not in the mailbox after {deadline.seconds:g} s")
        news.wait(box, deadline)
