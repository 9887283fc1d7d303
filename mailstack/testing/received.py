"""A mail that a test has received."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from mailstack.message import html as hypertext
from mailstack.message import message
from mailstack.message.fields import decoded

if TYPE_CHECKING:
    from mailstack.trace.journey import Journey

# A link in a text ends at a character that no URI has (RFC 3986, section 2), and before the sentence's punctuation.
_URL = re.compile(r"https?://[^\s<>\"“”„`{}|\\^]+", re.IGNORECASE)
_TRAILING = ".,;:!?'”’"

# Postfix's part of Received: “by postfix (Postfix) with ESMTPSA id 682B0170003”.
_QUEUED = re.compile(r"\(Postfix[^)]*\)\s+(?:with \S+ )?\s*id (\w+)")

# The usual one-time code: six digits.
CODE = r"(?<!\d)\d{6}(?!\d)"


class Headers(Mapping[str, str]):
    """The fields of a mail's header, decoded; names are case-insensitive. Returns the first of several; see `all`."""

    def __init__(self, fields: tuple[tuple[str, str], ...]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        found = self.all(name)
        if not found:
            raise KeyError(name)
        return found[0]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._fields))

    def __len__(self) -> int:
        return len({name for name, _ in self._fields})

    def all(self, name: str) -> list[str]:
        """Return every field of this name (for example Received), from the top."""
        return [decoded(value) for each, value in self._fields if each == name.lower()]

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment, decoded. The name is as the sender wrote it: never use it as a path."""

    name: str
    type: str
    content: bytes

    @property
    def text(self) -> str:
        """Return the content as text, decoded from UTF-8. Raises UnicodeDecodeError."""
        return self.content.decode()


class Message:
    """A mail in a mailbox. It stays readable after the mailbox is cleared."""

    def __init__(self, mail: message.Message, trace: Callable[[str], Journey]) -> None:
        self._mail = mail
        self._trace = trace

    @property
    def uid(self) -> int:
        """Return its UID (RFC 3501, section 2.3.1.1). Later mails have higher ones."""
        return self._mail.uid

    @property
    def raw(self) -> bytes:
        """Return all its bytes, as stored in the mailbox."""
        return self._mail.raw

    @property
    def arrived(self) -> datetime:
        """Return when it arrived in the mailbox, to the second."""
        return self._mail.arrived

    @property
    def message_id(self) -> str:
        """Return its Message-ID, with angle brackets; “” if it has none."""
        return self._mail.message_id

    @property
    def subject(self) -> str:
        """Return its subject, decoded."""
        return self._mail.field("subject")

    @property
    def sender(self) -> str:
        """Return the address in From."""
        return next(iter(self._mail.addresses("from")), "")

    @property
    def to(self) -> list[str]:
        """Return the addresses in To."""
        return self._mail.addresses("to")

    @property
    def recipients(self) -> list[str]:
        """Return the addresses in To and Cc."""
        return [*self.to, *self._mail.addresses("cc")]

    @property
    def headers(self) -> Headers:
        """Return the fields of the header."""
        return Headers(self._mail.parts[0].fields)

    @property
    def text(self) -> str:
        """Return its plain text; “” if it has none."""
        return self._mail.text

    @property
    def html(self) -> str:
        """Return its HTML, as it was sent; “” if it has none."""
        return self._mail.html

    @property
    def readable(self) -> str:
        """Return the readable text: the plain text, or the text of the HTML if there is none."""
        return self._mail.readable

    def links(self) -> list[str]:
        """Return each link of its HTML, and each http and https link in its text, once, in order."""
        return list(dict.fromkeys([*hypertext.links(self.html), *urls(self.text)]))

    def link(self, pattern: str | re.Pattern[str] = "") -> str:
        """Return the first link that the pattern matches. Raises AssertionError when there is none."""
        __tracebackhide__ = True
        links = self.links()
        for link in links:
            if re.search(pattern, link):
                return link
        raise AssertionError(f"no link matches {_quoted(pattern)} in {self!r}; {_listing(links, 'links')}")

    def code(self, pattern: str | re.Pattern[str] = CODE) -> str:
        """Return the first match of the pattern in the readable text, or its first group.

        The default pattern is six digits. Raises AssertionError when there is no match.
        """
        __tracebackhide__ = True
        found = re.search(pattern, self.readable)
        if found is None:
            raise AssertionError(f"nothing matches {_quoted(pattern)} in the text of {self!r}:\n{self.readable[:2000]}")
        return str(found[1] if found.re.groups else found[0])

    @property
    def attachments(self) -> list[Attachment]:
        """Return its attachments, in order."""
        mail = self._mail
        return [Attachment(mail.name_of(part), part.type, mail.content(part)) for part in mail.attachments]

    def attachment(self, name: str | re.Pattern[str] | None = None) -> Attachment:
        """Return the attachment of this name, or the first whose name a pattern matches; without a name, the only one.

        Raises AssertionError when there is none.
        """
        __tracebackhide__ = True
        attachments = self.attachments
        names = [each.name for each in attachments]
        if name is None:
            if len(attachments) == 1:
                return attachments[0]
            raise AssertionError(f"expected exactly one attachment in {self!r}; {_listing(names, 'attachments')}")
        for each in attachments:
            if each.name == name if isinstance(name, str) else name.search(each.name):
                return each
        raise AssertionError(f"no attachment is called {_quoted(name)} in {self!r}; {_listing(names, 'attachments')}")

    def journey(self) -> Journey:
        """Return its path through the servers, as `mailstack trace` shows it: status, hops, events, `json()`.

        Raises AssertionError when the logs do not have it.
        """
        __tracebackhide__ = True
        # A client may send a mail without Message-ID.
        return self._trace(self.message_id or next(iter(self.queue_ids), ""))

    @property
    def queue_ids(self) -> list[str]:
        """Return its queue ids at each Postfix on its path, the last hop first."""
        return [found[1] for found in map(_QUEUED.search, self.headers.all("Received")) if found]

    def __repr__(self) -> str:
        return f"<Message {self.uid}: “{self.subject}” from {self.sender or '<>'} to {', '.join(self.to) or 'nobody'}>"


def urls(text: str) -> list[str]:
    """Return the web addresses in a text, without the punctuation around them."""
    found = []
    for each in _URL.findall(text):
        link = each.rstrip(_TRAILING)
        # A bracket that was opened before the link closes after it.
        while link.endswith((")", "]")) and link.count(link[-1]) > link.count("(" if link[-1] == ")" else "["):
            link = link[:-1].rstrip(_TRAILING)
        found.append(link)
    return found


def _quoted(pattern: str | re.Pattern[str]) -> str:
    return repr(pattern if isinstance(pattern, str) else pattern.pattern)


def _listing(found: list[str], what: str) -> str:
    return f"its {what}: {', '.join(found)}" if found else f"it has no {what}"
