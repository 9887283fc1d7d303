"""Transcripts of SMTP dialogues: speaker, meaning and source of each line.

Credentials are replaced here in any recording: the initial response of AUTH, every answer to a 334, and both in lines
where a server repeats them (RFC 4954, section 4).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mailstack.model import Json
from mailstack.protocol.status_codes import enhanced, reply

BLOT = "••••••••"
HEADER_LINES, BODY_LINES, LINE_LENGTH = 60, 12, 400  # limits of a message as shown: lines, lines, characters

Speaker = Literal["client", "server"]


@dataclass(frozen=True, slots=True)
class RecordedLine:
    """One recorded line, without its line end; `milliseconds` since the recording began, if known."""

    speaker: Speaker
    text: str
    milliseconds: float | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A command, a reply of one or several lines, or the message, with its meaning and source."""

    speaker: Speaker
    lines: tuple[str, ...]
    meaning: str
    source: str  # "RFC 5321, section 4.2.3"; several are separated by "; "
    step: str  # greeting, tls, auth, envelope, data, quit; "" for anything else
    code: int | None = None  # of a reply
    enhanced: str | None = None
    milliseconds: float | None = None

    def json(self) -> Json:
        """Return the exchange as in documents."""
        return {
            "from": self.speaker,
            "lines": list(self.lines),
            "code": self.code,
            "enhanced": self.enhanced,
            "meaning": self.meaning,
            "source": self.source,
            "step": self.step,
            "milliseconds": None if self.milliseconds is None else round(self.milliseconds, 1),
        }


@dataclass(frozen=True, slots=True)
class Tls:
    """The TLS session after STARTTLS."""

    version: str  # TLSv1.3
    cipher: str  # TLS_AES_256_GCM_SHA384


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A whole dialogue of a client with a server."""

    client: str
    server: str
    exchanges: tuple[Exchange, ...]
    tls: Tls | None = None

    def json(self) -> Json:
        """Return the dialogue as in documents."""
        return {
            "client": self.client,
            "server": self.server,
            "tls": {"version": self.tls.version, "cipher": self.tls.cipher} if self.tls else None,
            "exchanges": [exchange.json() for exchange in self.exchanges],
        }


# verb -> meaning, source, step
_COMMANDS = {
    "EHLO": ("greets, and asks what the server can do", "RFC 5321, section 4.1.1.1", "greeting"),
    "HELO": ("greets, without asking for extensions", "RFC 5321, section 4.1.1.1", "greeting"),
    "LHLO": ("greets, and asks what the server can do", "RFC 2033, section 4.1", "greeting"),
    "STARTTLS": ("asks for TLS", "RFC 3207, section 4", "tls"),
    "AUTH": ("authenticates", "RFC 4954, section 4", "auth"),
    "MAIL": ("begins the envelope: the envelope sender", "RFC 5321, section 4.1.1.2", "envelope"),
    "RCPT": ("the envelope: an envelope recipient", "RFC 5321, section 4.1.1.3", "envelope"),
    "DATA": ("announces the message", "RFC 5321, section 4.1.1.4", "data"),
    "RSET": ("discards the envelope", "RFC 5321, section 4.1.1.5", "envelope"),
    "VRFY": ("asks whether there is such a user", "RFC 5321, section 4.1.1.6", ""),
    "EXPN": ("asks who is on a mailing list", "RFC 5321, section 4.1.1.7", ""),
    "HELP": ("asks for help", "RFC 5321, section 4.1.1.8", ""),
    "NOOP": ("asks for a reply only", "RFC 5321, section 4.1.1.9", ""),
    "QUIT": ("ends the session", "RFC 5321, section 4.1.1.10", "quit"),
}
_MECHANISMS = {
    "PLAIN": "RFC 4616",
    "LOGIN": "draft-murchison-sasl-login",
    "CRAM-MD5": "RFC 2195",
    "SCRAM-SHA-1": "RFC 5802",
    "SCRAM-SHA-256": "RFC 7677",
    "EXTERNAL": "RFC 4422, appendix A",
    "XOAUTH2": "",
    "OAUTHBEARER": "RFC 7628",
}
_CREDENTIALS = ("its credentials", "RFC 4954, section 4", "auth")
_MESSAGE = ("the message: a header, an empty line, a body", "RFC 5322, section 2.1", "data")
_END = ("the end of the message", "RFC 5321, section 4.1.1.4", "data")

_REPLY = re.compile(r"(?P<code>[2-5]\d\d)(?P<more>[ -]|$)(?:(?P<enhanced>[245]\.\d{1,3}\.\d{1,3})(?= |$))?", re.ASCII)


@dataclass(slots=True)
class Blotter:
    """Replaces credentials in lines, in the order of the dialogue."""

    _challenged: bool = False  # the server has sent 334: the next line is a credential
    _credentials: set[str] = field(default_factory=set)

    def clean(self, line: RecordedLine) -> RecordedLine:
        """Return the line without credentials."""
        if line.speaker == "server":
            self._challenged = line.text.startswith("334")
            text = line.text
            for credential in sorted(self._credentials, key=len, reverse=True):
                text = text.replace(credential, BLOT)
            return replace(line, text=text)
        if self._challenged:
            self._remember(line.text)
            return replace(line, text=BLOT)
        words = line.text.split(maxsplit=2)
        if len(words) == 3 and words[0].upper() == "AUTH":
            self._remember(words[2])
            return replace(line, text=f"{words[0]} {words[1]} {BLOT}")
        return line

    def _remember(self, token: str) -> None:
        """Remember the token, and the password in a token of PLAIN (RFC 4616, section 2)."""
        found = {token, *token.split()}
        try:
            decoded = base64.b64decode(token, validate=True).decode()
        except (binascii.Error, ValueError):
            decoded = ""
        if decoded.count("\0") == 2:
            found.add(decoded.rpartition("\0")[2])
        self._credentials |= {each for each in found if len(each) >= 4 and each != BLOT}


def annotate(
    recorded: Iterable[RecordedLine],
    *,
    client: str,
    server: str,
    tls: Tls | None = None,
    message: Sequence[str] | None = None,
) -> Dialogue:
    """Return the Dialogue of recorded lines.

    `message`: the lines of the message, if the recording has none between the 354 and the dot.
    """
    blotter = Blotter()
    exchanges: list[Exchange] = []
    waiting: deque[tuple[str, str]] = deque([("", "greeting")])  # (verb, step) of each command without a reply so far
    lines: list[RecordedLine] = []  # of an unfinished reply, or of the message
    in_message = False
    for each in recorded:
        if in_message and each.speaker == "client":
            if each.text != ".":
                lines.append(each)
                continue
            exchanges += _message(lines, each, message)
            lines, in_message = [], False
            waiting.append((".", "data"))
            continue
        if lines and in_message:  # the server did not wait for the end of the message
            exchanges += _message(lines, None, None)
            lines, in_message = [], False
        clean = blotter.clean(each)
        if each.speaker == "client":
            exchanges.append(_command(clean))
            waiting.append((clean.text.partition(" ")[0].upper(), exchanges[-1].step))
            continue
        lines.append(clean)
        match = _REPLY.match(clean.text)
        if match and match["more"] == "-":
            continue
        verb, step = waiting.popleft() if waiting else ("?", "")
        exchanges.append(_reply(lines, verb, step))
        in_message, lines = exchanges[-1].code == 354, []
    if lines:
        exchanges += _message(lines, None, None) if in_message else [_reply(lines, "?", "")]
    return Dialogue(client, server, tuple(exchanges), tls)


def _command(line: RecordedLine) -> Exchange:
    verb, _, rest = line.text.partition(" ")
    meaning, source, step = _COMMANDS.get(verb.upper(), ("", "", ""))
    if line.text == BLOT:
        meaning, source, step = _CREDENTIALS
    elif verb.upper() == "AUTH" and rest:
        mechanism = rest.split()[0].upper()
        meaning += f" with the mechanism {mechanism}"
        source += f"; {_MECHANISMS[mechanism]}" if _MECHANISMS.get(mechanism) else ""
    return Exchange("client", (line.text,), meaning, source, step, milliseconds=line.milliseconds)


def _reply(lines: Sequence[RecordedLine], verb: str, step: str) -> Exchange:
    texts, moment = tuple(line.text for line in lines), lines[-1].milliseconds
    match = _REPLY.match(texts[-1])
    if match is None:
        return Exchange("server", texts, "not a valid SMTP reply", "RFC 5321, section 4.2", step, milliseconds=moment)
    code, enhanced_code = int(match["code"]), match["enhanced"]
    if enhanced_code and enhanced_code[0] != match["code"][0]:  # RFC 2034, section 4: the classes must be equal
        enhanced_code = None
    if verb in ("EHLO", "LHLO") and code == 250:
        meaning, source = "greets the client, and lists its extensions", "RFC 5321, section 4.1.1.1"
        return Exchange("server", texts, meaning, source, step, code, enhanced_code, moment)
    meanings = [each for each in (reply(code, after=verb), enhanced(enhanced_code) if enhanced_code else None) if each]
    # For a success, only the additional text of the enhanced code; “about an address” adds nothing.
    words = [each.text.removeprefix("success").removeprefix(": ") for each in meanings]
    words = [text for text in words if text and not (code < 300 and text.startswith("about "))]
    sources = "; ".join(each.source for each in meanings)
    return Exchange("server", texts, "; ".join(words), sources, step, code, enhanced_code, moment)


def _message(lines: Sequence[RecordedLine], end: RecordedLine | None, known: Sequence[str] | None) -> list[Exchange]:
    """Return the message and the dot that ends it, or the dot alone if the message is unknown."""
    texts = [line.text for line in lines] or list(known or ())
    moment = lines[0].milliseconds if lines else end.milliseconds if end else None
    exchanges = [Exchange("client", shorten(texts), *_MESSAGE, milliseconds=moment)] if texts else []
    if end:
        exchanges.append(Exchange("client", (end.text,), *_END, milliseconds=end.milliseconds))
    return exchanges


def shorten(lines: Sequence[str]) -> tuple[str, ...]:
    """Return header, empty line and the first lines of the body; a line in brackets replaces the rest."""
    middle = next((number for number, line in enumerate(lines) if line == ""), len(lines))
    header, body = list(lines[:middle]), list(lines[middle:])
    kept = _first(header, HEADER_LINES) + body[:1] + _first(body[1:], BODY_LINES)
    return tuple(line if len(line) <= LINE_LENGTH else line[: LINE_LENGTH - 1] + "…" for line in kept)


def _first(lines: list[str], count: int) -> list[str]:
    if len(lines) <= count + 1:
        return lines
    rest = lines[count:]
    size = sum(len(line.encode(errors="replace")) + 2 for line in rest)
    return [*lines[:count], _omission(len(rest), size)]


def _omission(lines: int, size: int) -> str:
    return f"[… {lines} more lines, {size:,} bytes]"


class Excerpt:
    """The lines of a message that `shorten` keeps, for a message read line by line; uses bounded memory."""

    def __init__(self) -> None:
        self._body = -1  # lines of the body so far; -1 in the header
        self._first, self._lines, self._size = "", 0, 0  # of the lines left out

    def take(self, line: str) -> tuple[str, ...]:
        """Take the next line; return it, or nothing if it is left out."""
        if self._body < 0:
            self._body = 0 if line == "" else -1
            return (line,)
        self._body += 1
        if self._body <= BODY_LINES:
            return (line,)
        self._first = self._first or line
        self._lines += 1
        self._size += len(line.encode(errors="replace")) + 2
        return ()

    def end(self) -> tuple[str, ...]:
        """Return the replacement of the lines left out."""
        if self._lines <= 1:
            return (self._first,) * self._lines
        return (_omission(self._lines, self._size),)
