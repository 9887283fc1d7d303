"""Parsing of header fields, also hostile ones: encoded words, parameters, addresses and dates.

Every input gives a result, in time linear in its length. The standard library's parsers do not guarantee that: some
raise, some recurse, some take quadratic time.
"""

from __future__ import annotations

import binascii
import codecs
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes

LONGEST = 65536  # bytes of one field that are parsed; Postfix itself keeps 102400 (header_size_limit)

# Python's codecs for these are not used in mail, and the first two take quadratic time.
_NO_CHARSETS = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"}


def to_text(data: bytes, charset: str = "utf-8") -> str:
    """Return `data` as text. Invalid bytes are replaced; an unknown character set is read as UTF-8."""
    try:
        if codecs.lookup(charset).name.replace("-", "_") in _NO_CHARSETS:
            charset = "utf-8"
        text = data.decode(charset, errors="replace")
    except (LookupError, ValueError):  # unknown, a codec from bytes to bytes, or with a NUL in its name
        text = data.decode("utf-8", errors="replace")
    return text.encode("utf-8", errors="replace").decode("utf-8")  # UTF-7 can encode a lone surrogate


def raw_text(data: bytes) -> str:
    """Return a field's bytes as text: UTF-8 (RFC 6532), or else Latin-1, which accepts every byte."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def from_base64(data: bytes) -> bytes:
    """Decode base64 (RFC 2045, section 6.8) up to its padding; other characters are ignored."""
    letters = data.partition(b"=")[0].translate(None, _NOT_BASE64)
    letters = letters[: len(letters) - (len(letters) % 4 == 1)]
    return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))


_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))

# RFC 2047, section 2; RFC 2231, section 5, adds a language after the character set.
_WORD = re.compile(r"=\?([^\s?*]+)(?:\*[^\s?]*)?\?([bBqQ])\?([^?\r\n]*)\?=(?:\s+(?==\?))?")


def decoded(value: str) -> str:
    """Return a field with its encoded words (RFC 2047) decoded; invalid ones are left unchanged."""
    shown: list[str] = []
    held, charset, end = b"", "", 0  # adjacent words may split a character
    for word in _WORD.finditer(value):
        if held and (word.start() != end or word[1].lower() != charset):
            shown.append(to_text(held, charset))
            held = b""
        shown.append(value[end : word.start()])
        data = word[3].encode("utf-8", errors="replace")
        held += from_base64(data) if word[2] in "bB" else binascii.a2b_qp(data, header=True)
        charset, end = word[1].lower(), word.end()
    if held:
        shown.append(to_text(held, charset))
    return "".join([*shown, value[end:]])


_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"?|[^;]*)', re.DOTALL)
_SECTION = re.compile(r"(.+?)(?:\*(\d{1,3}))?(\*)?")


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """Return a structured field's value in lower case (Content-Type, …), and its parameters (RFC 2045, RFC 2231)."""
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[str, bool]]] = {}
    for name, given in _PARAMETER.findall(value):
        quoted = given.startswith('"')
        text = re.sub(r"\\(.)", r"\1", given[1:].removesuffix('"'), flags=re.DOTALL) if quoted else given.strip()
        section = _SECTION.fullmatch(name.lower())
        if section is None or (section[2] is None and section[3] is None):
            plain.setdefault(name.lower(), text)
        else:
            sections.setdefault(section[1], {}).setdefault(int(section[2] or 0), (text, bool(section[3])))
    for name, numbered in sections.items():
        plain[name] = _joined([numbered[number] for number in sorted(numbered)])
    return value.partition(";")[0].strip().lower(), plain


def _joined(sections: list[tuple[str, bool]]) -> str:
    """Return a parameter sent in sections or with a character set: `utf-8'en'na%C3%AFve` (RFC 2231, section 4)."""
    first, extended = sections[0]
    charset, _, rest = first.partition("'") if extended and first.count("'") >= 2 else ("utf-8", "", "'" + first)
    sections = [(rest.partition("'")[2], extended), *sections[1:]]
    data = b"".join(
        unquote_to_bytes(text) if extended else text.encode(errors="replace") for text, extended in sections
    )
    return to_text(data, charset or "utf-8")


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|<[^<>]*>?|[,;:()]|[^",;:()<>]+|>', re.DOTALL)


def addresses(value: str) -> list[str]:
    """Return the addresses in a list (RFC 5322, section 3.4), valid or not.

    Display names, comments and the names of groups are left out.
    """
    found = [""]
    in_angles = False
    depth = 0  # nesting of comments
    for token in _TOKEN.findall(value):
        if token in {"(", ")"}:
            depth = max(0, depth + (1 if token == "(" else -1))
        elif depth:
            continue
        elif token in {",", ";"}:
            found.append("")
            in_angles = False
        elif token == ":":
            found[-1] = ""
        elif token.startswith("<"):
            found[-1] = token.strip("<>")
            in_angles = True
        elif not in_angles:
            found[-1] += token
    return [address.strip() for address in found if address.strip()]


def moment(value: str) -> datetime | None:
    """Return a date (RFC 5322, section 3.3) with its time zone, or None if it is invalid."""
    try:
        when = parsedate_to_datetime(value[:100])
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


_ID = re.compile(r"<[!-;=?-~]{1,250}>")


def message_ids(value: str) -> list[str]:
    """Return the Message-IDs in a field (RFC 5322, section 3.6.4) that are printable and fit in a line."""
    return [found for found in _ID.findall(value) if "@" in found]
