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
    asked = to.addresses("reply-to")
    if not asked and to.field("return-path") == "<>":
        raise InputError("the mail came from the null sender (<>), as bounces do: there is nobody to answer")
    wanted = list(dict.fromkeys(asked or to.addresses("from")))
    wrong = [address for address in wanted if not is_address(address)]
    if wrong or not 1 <= len(wanted) <= MOST_RECIPIENTS:
        said = f"{wrong[0][:100]!r}, which is no mail address" if wrong else f"{len(wanted) or 'no'} addresses"
        raise InputError(
            f"the mail asks for answers to {said}" if asked else f"the mail is from {said}",
            remedy=otherwise and f"{otherwise} writes to whom you choose",
        )
    return wanted


def subject(of: str) -> str:
    """Return `Re: …` in one line, without a second `Re:`."""
    line = "".join(" " if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else c for c in of)
    line = re.sub(r"^(?:\s*re\s*:)+", "", " ".join(line.split()), flags=re.IGNORECASE).strip()
    return f"Re: {line}".strip()[:LONGEST_SUBJECT]


def thread(to: Message) -> dict[str, tuple[str, ...]]:
    """Return the reply's In-Reply-To and References (RFC 5322, section 3.6.4); none if the mail has no Message-ID."""
    first = to.parts[0]
    own = to.message_id
    if not own:
        return {}
    before = message_ids(first.value("references"))
    if not before and len(answered := message_ids(first.value("in-reply-to"))) == 1:
        before = answered
    before = [each for each in dict.fromkeys(before) if each != own]
    if len(before) >= MOST_IDS:
        before = [before[0], *before[-MOST_IDS + 2 :]]
    return {"In-Reply-To": (own,), "References": (*before, own)}


def quote(to: Message) -> Iterator[str]:
    """Yield the mail's text with `> ` before each line, after a line with author and date; safe for a terminal."""
    when = moment(to.parts[0].value("date"))
    who = next(iter(to.addresses("from")), "somebody")
    yield _harmless(f"On {when:%Y-%m-%d at %H:%M %z}, {who} wrote:" if when else f"{who} wrote:")
    said = to.readable
    for line in said[:LONGEST_QUOTE].rstrip("\n").split("\n"):
        yield f"> {_harmless(line)}".rstrip()
    if len(said) > LONGEST_QUOTE:
        yield "> […]"


def _harmless(line: str) -> str:
    return "".join(c if c == "\t" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co"} else "?" for c in line)
