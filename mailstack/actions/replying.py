"""The reply to a mail: recipients, subject, thread and quoted text. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mailstack.actions import sending
from mailstack.errors import InputError
from mailstack.message.fields import message_ids, moment
from mailstack.message.message import Message
from mailstack.model import Lab
from mailstack.text.addresses import is_address

# Limits against a hostile mail: it may name thousands of addresses for replies, or be too large to quote.
MOST_RECIPIENTS = 50
LONGEST_QUOTE = 64 * 1024  # characters
LONGEST_SUBJECT = 500  # characters
MOST_IDS = 20  # of References: the first and the last ones (RFC 5537, section 3.4.4, allows it)


def answer(
    lab: Lab,
    sender: str,
    to: Message,
    body: str,
    attachments: Sequence[Path] = (),
    *,
    quoted: bool = True,
    otherwise: str = "",
) -> sending.Letter:
    """Return a Letter from `sender` that replies to a mail.

    Raises InputError if the mail has no address to reply to; `otherwise` is the command line that sends a new mail.
    """
    text = body.rstrip("\n") + "\n"
    if quoted:
        text += "\n" + "".join(f"{line}\n" for line in quote(to))
    letter = sending.letter(lab, sender, recipients(to, otherwise), subject(to.field("subject")), text, attachments)
    return replace(letter, thread=thread(to))


def recipients(to: Message, otherwise: str = "") -> list[str]:
    """Return the plain addresses of Reply-To, or of From (RFC 5322, section 3.6.2). Raises InputError if invalid."""
    reply_to = to.addresses("reply-to")
    if not reply_to and to.field("return-path") == "<>":
        raise InputError("the mail came from the null sender (<>), as bounces do: there is no address to reply to")
    addresses = list(dict.fromkeys(reply_to or to.addresses("from")))
    invalid = [address for address in addresses if not is_address(address)]
    if invalid or not 1 <= len(addresses) <= MOST_RECIPIENTS:
        problem = (
            f"{invalid[0][:100]!r}, which is not a mail address" if invalid else f"{len(addresses) or 'no'} addresses"
        )
        raise InputError(
            f"the mail asks for replies to {problem}" if reply_to else f"the mail is from {problem}",
            remedy=otherwise and f"{otherwise} sends a new mail",
        )
    return addresses


def subject(of: str) -> str:
    """Return `Re: …` in one line, without a second `Re:`."""
    line = "".join(" " if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else c for c in of)
    line = re.sub(r"^(?:\s*re\s*:)+", "", " ".join(line.split()), flags=re.IGNORECASE).strip()
    return f"Re: {line}".strip()[:LONGEST_SUBJECT]


def thread(to: Message) -> dict[str, tuple[str, ...]]:
    """Return the reply's In-Reply-To and References (RFC 5322, section 3.6.4); none if the mail has no Message-ID."""
    header = to.parts[0]
    own = to.message_id
    if not own:
        return {}
    ancestors = message_ids(header.value("references"))
    if not ancestors and len(replied_to := message_ids(header.value("in-reply-to"))) == 1:
        ancestors = replied_to
    ancestors = [each for each in dict.fromkeys(ancestors) if each != own]
    if len(ancestors) >= MOST_IDS:
        ancestors = [ancestors[0], *ancestors[-MOST_IDS + 2 :]]
    return {"In-Reply-To": (own,), "References": (*ancestors, own)}


def quote(to: Message) -> Iterator[str]:
    """Yield the mail's text with `> ` before each line, after a line with author and date; safe for a terminal."""
    sent_at = moment(to.parts[0].value("date"))
    author = next(iter(to.addresses("from")), "somebody")
    yield _harmless(f"On {sent_at:%Y-%m-%d at %H:%M %z}, {author} wrote:" if sent_at else f"{author} wrote:")
    text = to.readable
    for line in text[:LONGEST_QUOTE].rstrip("\n").split("\n"):
        yield f"> {_harmless(line)}".rstrip()
    if len(text) > LONGEST_QUOTE:
        yield "> […]"


def _harmless(line: str) -> str:
    return "".join(c if c == "\t" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co"} else "?" for c in line)
