"""The contents of a mailbox: its list, one mail, and mails as they arrive. Needs a box that `imap` opened."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mailstack.errors import HostError
from mailstack.message.fields import addresses, decoded, message_ids, moment, to_text
from mailstack.message.message import Message
from mailstack.message.mime import header
from mailstack.model import Deadline, Json
from mailstack.protocol import idle

if TYPE_CHECKING:
    from imap_tools import BaseMailBox

# FETCH items that suffice to list a mail of any size: six fields, up to 64 KB of them, and the server's preview of the
# text (RFC 8970).
_SUMMARY = "(UID RFC822.SIZE INTERNALDATE PREVIEW BODY.PEEK[HEADER.FIELDS (DATE FROM TO SUBJECT MESSAGE-ID)]<0.65536>)"

_PIECE = 1 << 20  # bytes of a mail per FETCH


@dataclass(frozen=True, slots=True)
class Summary:
    """A mail in the list. `uid` stays the same while the mail is in the mailbox."""

    uid: int
    date: datetime  # of the Date field, or else of the arrival
    sender: str  # address of the From field
    recipients: tuple[str, ...]
    subject: str
    size: int  # bytes
    message_id: str
    preview: str  # the first words of the text, up to 200 characters, from the server

    def json(self) -> Json:
        """Return the mail's keys in the document of `mailstack inbox --json`."""
        return {
            "uid": self.uid,
            "date": self.date.isoformat(),
            "from": self.sender,
            "to": list(self.recipients),
            "subject": self.subject,
            "bytes": self.size,
            "message_id": self.message_id,
            "preview": self.preview,
        }


def summaries(box: BaseMailBox, uids: str = "1:*") -> list[Summary]:
    """Return the mails with these UIDs (a set as in RFC 3501, section 9), oldest first. Raises HostError."""
    mails = [_summary(items) for items in fetched(_fetch(box, uids, _SUMMARY)) if _BODY in items]
    return sorted(mails, key=lambda summary: summary.uid)


def message(box: BaseMailBox, uid: int | None) -> Message | None:
    """Return the mail with this UID, or the newest, and mark it as seen; None if there is none. Raises HostError."""
    for items in fetched(_fetch(box, str(uid or "*"), "(UID INTERNALDATE BODY[])")):
        if items.get("BODY[]") is not None:
            return Message(int(items["UID"]), items["BODY[]"], _internal_date(items))
    return None


def messages(box: BaseMailBox, after: int = 0) -> list[Message]:
    """Return the full mails with UIDs above `after`, oldest first. Marks none as seen. Raises HostError."""
    answer = fetched(_fetch(box, f"{after + 1}:*", "(UID INTERNALDATE BODY.PEEK[])"))
    mails = [
        Message(int(items["UID"]), items["BODY[]"], _internal_date(items))
        for items in answer
        if items.get("BODY[]") is not None
    ]
    # `n:*` always includes the last mail.
    return sorted((mail for mail in mails if mail.uid > after), key=lambda mail: mail.uid)


def newest(box: BaseMailBox) -> int:
    """Return the highest UID in the mailbox, 0 if it is empty. Raises HostError."""
    return max((int(items.get("UID", 0)) for items in fetched(_fetch(box, "*", "(UID)"))), default=0)


def identities(box: BaseMailBox) -> list[str]:
    """Return the Message-ID of every mail in the mailbox, "" if it has none. Raises HostError.

    Fetches only this field, so it is cheap for many mails.
    """
    answer = fetched(_fetch(box, "1:*", "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])"))
    headers = [items[_BODY] or b"" for items in answer if _BODY in items]
    return [found[0] if (found := message_ids(to_text(header))) else "" for header in headers]


def arrivals(box: BaseMailBox, after: int, deadline: Deadline | None = None) -> Iterator[Summary]:
    """Yield each mail with a UID above `after` as soon as the server reports it, until the deadline.

    Waits in IDLE (RFC 2177). Raises HostError when the connection is lost.
    """
    while True:
        for summary in summaries(box, f"{after + 1}:*"):
            if summary.uid > after:  # `n:*` always includes the last mail
                after = summary.uid
                yield summary
        if deadline and deadline.passed():
            return
        idle.idle(box, min(idle.IDLE_SECONDS, deadline.remaining()) if deadline else idle.IDLE_SECONDS)


def _fetch(box: BaseMailBox, uids: str, items: str) -> Sequence[Any]:
    status, answer = box.client.uid("FETCH", uids, items)
    if status != "OK":
        raise HostError(f"the IMAP server refused to show its mails: {to_text(answer[0] or b'')}")
    return [each for each in answer if each is not None]


_BODY = "BODY[HEADER.FIELDS]"
_TOKEN = re.compile(
    rb'\s*(?:(?P<bracket>[()])|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<literal>\{\d+\})|(?P<body>BODY)(?P<section>\[[^\]]*\])'
    rb'(?:<\d+>)?|(?P<atom>[^\s()"{]+)|.)'
)


def fetched(answer: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield the items of each message in an answer to FETCH from `imaplib`: bytes, with literals as (before, literal).

    The name of a BODY item ends at `HEADER.FIELDS`: its list of fields is left out. Lists (FLAGS) are None.
    """
    tokens: list[Any] = []
    for each in answer:
        before, literal = each if isinstance(each, tuple) else (each, None)
        tokens += _tokens(before)
        if literal is not None:
            tokens.append(literal)
            continue
        yield _items(tokens)
        tokens = []


def _tokens(line: bytes) -> Iterator[Any]:
    for token in _TOKEN.finditer(line):
        if token["bracket"]:
            yield token["bracket"].decode()
        elif token["quoted"] is not None:
            yield re.sub(rb"\\(.)", rb"\1", token["quoted"])
        elif token["body"]:
            yield b"BODY" + re.sub(rb"(HEADER\.FIELDS).*\]", rb"\1]", token["section"])
        elif token["atom"]:
            yield None if token["atom"] == b"NIL" else token["atom"]


def _items(tokens: list[Any]) -> dict[str, Any]:
    """Return `7 ( UID 7 FLAGS ( … ) )` as a dictionary: the outer list holds pairs of name and value."""
    flat: list[Any] = []
    depth = 0
    for token in tokens:
        if token == "(":
            depth += 1
            if depth == 2:
                flat.append(None)
        elif token == ")":
            depth -= 1
        elif depth == 1:
            flat.append(token)
    pairs = zip(flat[::2], flat[1::2], strict=False)
    return {name.decode(errors="replace").upper(): value for name, value in pairs if isinstance(name, bytes)}


def _summary(items: dict[str, Any]) -> Summary:
    fields: dict[str, str] = {}
    for name, value in header(items[_BODY] or b"")[0]:
        fields.setdefault(name, value)
    return Summary(
        uid=int(items["UID"]),
        date=moment(fields.get("date", "")) or _internal_date(items),
        sender=next(iter(addresses(fields.get("from", ""))), ""),
        recipients=tuple(addresses(fields.get("to", ""))),
        subject=decoded(fields.get("subject", "")),
        size=int(items.get("RFC822.SIZE") or 0),
        message_id=next(iter(message_ids(fields.get("message-id", ""))), ""),
        preview=to_text(items.get("PREVIEW") or b""),
    )


def _internal_date(items: dict[str, Any]) -> datetime:
    """Return the time of arrival: `23-Nov-2026 21:31:17 +0000` (RFC 3501, section 9, date-time)."""
    text = to_text(items.get("INTERNALDATE") or b"")
    return moment(text.replace("-", " ", 2)) or datetime.fromtimestamp(0, UTC)


def lines(box: BaseMailBox, uid: str) -> Iterator[str]:
    """Yield a message of the selected folder by lines, fetched in pieces (RFC 3501, section 6.4.5, partial fetch)."""
    partial, start = b"", 0
    while True:
        _, answer = box.client.uid("FETCH", uid, f"(BODY.PEEK[]<{start}.{_PIECE}>)")
        piece = next((each[1] for each in answer if isinstance(each, tuple)), b"")
        start += len(piece)
        *complete, partial = (partial + piece).split(b"\n")
        yield from (line.rstrip(b"\r").decode(errors="replace") for line in complete)
        if len(piece) < _PIECE:
            break
    if partial:
        yield partial.decode(errors="replace")
