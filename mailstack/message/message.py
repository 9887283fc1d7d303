"""A received mail: header fields, text, attachments. Pure: derived from its bytes alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from mailstack.message import html as hypertext
from mailstack.message import mime
from mailstack.message.fields import addresses, decoded, message_ids, moment
from mailstack.model import Json


@dataclass(frozen=True)
class Message:
    """A mail in a mailbox: its UID (RFC 3501, section 2.3.1.1), its bytes and its time of arrival."""

    uid: int
    raw: bytes
    arrived: datetime

    @cached_property
    def parts(self) -> list[mime.Part]:
        """The mail itself, and its parts."""
        return mime.parts(self.raw)

    def field(self, name: str) -> str:
        """Return the first field of this name (in lower case), decoded; “” if there is none."""
        return decoded(self.parts[0].value(name))

    def addresses(self, name: str) -> list[str]:
        """Return the addresses in the first field of this name, valid or not."""
        return addresses(self.parts[0].value(name))

    @property
    def message_id(self) -> str:
        """Its Message-ID, with angle brackets; “” if it has none."""
        return next(iter(message_ids(self.parts[0].value("message-id"))), "")

    @cached_property
    def text(self) -> str:
        """The plain text of the mail: all text/plain parts that are not attachments."""
        return self._shown("text/plain")

    @cached_property
    def html(self) -> str:
        """The HTML of the mail, as it was sent; “” if there is none."""
        return self._shown("text/html")

    @cached_property
    def readable(self) -> str:
        """The plain text, or the text of the HTML if there is none."""
        return self.text if self.text.strip() else hypertext.plain(self.html)

    @cached_property
    def attachments(self) -> list[mime.Part]:
        """The parts to save as files. Not by disposition alone: mailutils sets `inline` on text (RFC 2183)."""
        return [part for part in self.parts if not part.has_parts and _is_file(part)]

    @cached_property
    def notes(self) -> list[str]:
        """Remarks on how the mail was parsed."""
        if len(self.parts) < mime.MOST_PARTS:
            return []
        return [f"the mail has {mime.MOST_PARTS} parts or more: those that follow are left in the last one"]

    def content(self, part: mime.Part) -> bytes:
        """Return a part's content, decoded."""
        return mime.content(self.raw, part)

    def name_of(self, part: mime.Part) -> str:
        """Return an attachment's file name: the sender's, or for an attached mail its subject."""
        if part.name or part.type != "message/rfc822":
            return part.name
        inner, _ = mime.header(self.content(part))
        return decoded(next((value for name, value in inner if name == "subject"), "message")) + ".eml"

    def _shown(self, kind: str) -> str:
        parts = [p for p in self.parts if not p.has_parts and not _is_file(p) and _shown_as(p) == kind]
        texts = [mime.text(self.raw, part) for part in parts]
        # The line end before a delimiter belongs to the delimiter (RFC 2046, section 5.1.1).
        return "".join(text if text.endswith("\n") or text is texts[-1] else f"{text}\n" for text in texts)

    def json(self) -> Json:
        """Return the mail's keys in the document of `mailstack read --json`."""
        headers: dict[str, list[str]] = {}
        for name, value in self.parts[0].fields:
            headers.setdefault(name, []).append(decoded(value))
        return {
            "uid": self.uid,
            "date": (moment(self.parts[0].value("date")) or self.arrived).isoformat(),
            "from": next(iter(self.addresses("from")), ""),
            "to": self.addresses("to"),
            "subject": self.field("subject"),
            "bytes": len(self.raw),
            "message_id": self.message_id,
            "headers": headers,
            "text": self.text,
            "html": self.html,
            "attachments": [
                {"name": self.name_of(part), "type": part.type, "bytes": len(self.content(part))}
                for part in self.attachments
            ],
            "notes": self.notes,
        }


def _shown_as(part: mime.Part) -> str:
    """Return a part's type for display; a multipart without parts is plain text."""
    return "text/plain" if part.type.startswith("multipart/") else part.type


def _is_file(part: mime.Part) -> bool:
    return bool(part.name) or part.disposition == "attachment" or _shown_as(part) not in {"text/plain", "text/html"}
