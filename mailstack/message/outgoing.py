"""A mail sent in pieces: attachments are read from their files during sending, and never held in memory."""

from __future__ import annotations

import binascii
import mimetypes
import secrets
import smtplib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path

from mailstack.errors import CheckFailed

_LINE = 57  # bytes in a line of Base64, which has 76 characters (RFC 2045, section 6.8)
_CHUNK = 1024 * _LINE
_PIECE = 1 << 16


class Outgoing:
    """A message with attachments from files; `size` is its number of octets (RFC 1870)."""

    def __init__(self, message: EmailMessage, attachments: Sequence[Path] = ()) -> None:
        """Add a MIME part to `message` for each file; the files are read when the message is sent."""
        marks = []
        for path in attachments:
            mark = secrets.token_bytes(24)
            main, _, sub = type_of(path).partition("/")
            message.add_attachment(mark, maintype=main, subtype=sub, filename=path.name)
            marks.append(binascii.b2a_base64(mark).rstrip(b"\n"))
        rest = message.as_bytes(policy=message.policy.clone(linesep="\r\n"))
        self._between = []
        for mark in marks:
            before, _, rest = rest.partition(mark + b"\r\n")
            self._between.append(before)
        self._between.append(rest if rest.endswith(b"\r\n") else rest + b"\r\n")
        self._files = [(path, path.stat().st_size) for path in attachments]
        self.size = sum(map(len, self._between)) + sum(_encoded(octets) for _, octets in self._files)
        self.ascii = all(part.isascii() for part in self._between)

    def pieces(self) -> Iterator[bytes]:
        """Yield the message with CRLF as line end. Raises CheckFailed if a file has shrunk or is unreadable."""
        for number, text in enumerate(self._between):
            yield from (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
            if number < len(self._files):
                yield from _read(*self._files[number])

    def native(self) -> Iterator[bytes]:
        """Yield the message with Unix line ends, as sendmail(1) expects it: `native_size` bytes."""
        pending = b""
        for piece in self.pieces():
            data = pending + piece
            pending = b"\r" if data.endswith(b"\r") else b""
            yield data.removesuffix(pending).replace(b"\r\n", b"\n")

    @property
    def native_size(self) -> int:
        """The number of bytes of `native`."""
        lines = sum(text.count(b"\r\n") for text in self._between) + sum(_lines(octets) for _, octets in self._files)
        return self.size - lines


def dot_stuffed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a message as sent after DATA: with dots doubled, and the final line (RFC 5321, 4.5.2)."""
    end = b"\r\n"
    for piece in pieces:
        data = (end + piece).replace(b"\r\n.", b"\r\n..")
        yield data[len(end) :]
        end = (end + piece)[-2:]
    yield b".\r\n"


def hand_over(
    session: smtplib.SMTP, sender: str, recipients: Sequence[str], mail: Outgoing
) -> dict[str, tuple[int, bytes]]:
    """Send a mail to some recipients, in pieces; return the refused recipients with the replies.

    Its size is declared, so that the server can refuse a mail that is too large before it is sent (RFC 1870, section
    6.1). Raises what smtplib's `sendmail` does, OSError, and CheckFailed if an attachment cannot be read.
    """
    if not "".join((sender, *recipients)).isascii():
        raise smtplib.SMTPNotSupportedError("the server has no SMTPUTF8 (RFC 6531) for an address that needs it")
    session.ehlo_or_helo_if_needed()
    options = [f"SIZE={mail.size}"] if session.has_extn("size") else []
    options += ["BODY=8BITMIME"] if session.has_extn("8bitmime") and not mail.ascii else []
    code, reply = session.mail(sender, options)
    if code != 250:
        _hang_up_or_reset(session, code)
        raise smtplib.SMTPSenderRefused(code, reply, sender)
    refused = {}
    for recipient in recipients:
        code, reply = session.rcpt(recipient)
        if code not in (250, 251):
            refused[recipient] = (code, reply)
        if code == 421:
            break
    if len(refused) == len(set(recipients)) or code == 421:
        _hang_up_or_reset(session, code)
        raise smtplib.SMTPRecipientsRefused(refused)
    code, reply = session.docmd("data")
    if code == 354:
        try:
            for piece in dot_stuffed(mail.pieces()):
                session.send(piece)
        except CheckFailed:
            session.close()  # without the final line the server discards the message
            raise
        code, reply = session.getreply()
    if code != 250:
        _hang_up_or_reset(session, code)
        raise smtplib.SMTPDataError(code, reply)
    return refused


def _hang_up_or_reset(session: smtplib.SMTP, code: int) -> None:
    if code == 421:
        session.close()
    else:
        with suppress(smtplib.SMTPServerDisconnected):
            session.rset()


def type_of(path: Path) -> str:
    """Return the media type of a file by its name (RFC 2046)."""
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _lines(octets: int) -> int:
    return -(-octets // _LINE)


def _encoded(octets: int) -> int:
    """Return the size of so many octets in Base64, including line ends."""
    return 4 * -(-octets // 3) + 2 * _lines(octets)


def _read(path: Path, octets: int) -> Iterator[bytes]:
    left = octets
    try:
        with path.open("rb") as file:
            while left:
                data = file.read(min(_CHUNK, left))
                if len(data) < min(_CHUNK, left):
                    raise CheckFailed(f"{path}: has become shorter while it was sent: the mail is not sent")
                left -= len(data)
                text = binascii.b2a_base64(data, newline=False)
                yield b"".join(b"%b\r\n" % text[start : start + 76] for start in range(0, len(text), 76))
    except OSError as error:
        raise CheckFailed(f"{path}: cannot be read: {error.strerror or error}: the mail is not sent") from None
