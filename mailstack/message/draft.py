"""A new message: header, text and HTML (RFC 5322)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.policy import EmailPolicy, Policy, default
from email.utils import format_datetime, make_msgid


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
    """Return a message with a new date and Message-ID (RFC 5322, section 3.6.4); `mark` becomes part of a new id.

    `thread` has a reply's additional fields: In-Reply-To and References, each with its Message-IDs.
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
    """Return a new Message-ID in the sender's domain."""
    return make_msgid(mark, domain=sender.rpartition("@")[2] or "localhost")


def _policy() -> EmailPolicy[EmailMessage]:
    """Return a policy that writes one Message-ID a line: `email` would encode those over 76 characters."""
    from email.headerregistry import BaseHeader, HeaderRegistry, UnstructuredHeader

    class Ids(UnstructuredHeader, BaseHeader):
        def fold(self, *, policy: Policy) -> str:
            return f"{self.name}: {f'{policy.linesep} '.join(self.split())}{policy.linesep}"

    registry = HeaderRegistry()
    for name in ("in-reply-to", "references"):
        registry.map_to_type(name, Ids)
    return default.clone(header_factory=registry)
