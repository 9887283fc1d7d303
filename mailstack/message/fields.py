"""Header fields as they come: words, parameters, addresses and dates, also from who means harm.

Whatever is given, an answer is given back, in time that grows with its length alone. That is why the standard
library's parsers are not asked: some raise, some recurse, some take the square of the length.
"""

from __future__ import annotations

import binascii
import codecs
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes

LONGEST = 65536  # bytes of one field that are looked at; Postfix itself keeps 102400 (header_size_limit)

# Python calls these character sets, too; no mail is written in them, and the first two take quadratic time.
_NO_CHARSETS = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"}


def to_text(data: bytes, charset: str = "utf-8") -> str:
    """`data` as text; what is not in its character set, or in an unknown one, as far as it can be read."""
    try:
        if codecs.lookup(charset).name.replace("-", "_") in _NO_CHARSETS:
            charset = "utf-8"
        text = data.decode(charset, errors="replace")
    except (LookupError, ValueError):  # an unknown one, one of bytes to bytes, one with a NUL in its name
        text = data.decode("utf-8", errors="replace")
    return text.encode("utf-8", errors="replace").decode("utf-8")  # UTF-7 can spell half a pair of surrogates


def raw_text(data: bytes) -> str:
    """A field's bytes as text: UTF-8 (RFC 6532), or Latin-1, in which every byte is something."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def from_base64(data: bytes) -> bytes:
    """What base64 says (RFC 2045, section 6.8), up to its padding; other characters are skipped."""
    letters = data.partition(b"=")[0].translate(None, _NOT_BASE64)
    letters = letters[: len(letters) - (len(letters) % 4 == 1)]
    return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))


_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))

# RFC 2047, section 2; RFC 2231, section 5, adds a language to the character set.
_WORD = re.compile(r"=\?([^\s?*]+)(?:\*[^\s?]*)?\?([bBqQ])\?([^?\r\n]*)\?=(?:\s+(?==\?))?")


def decoded(value: str) -> str:
    """A field with its encoded words (RFC 2047) read; those that cannot be read stay as they are."""
    shown: list[str] = []
    held, charset, end = b"", "", 0  # words next to each other may have cut a character in two
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
    """A structured field such as Content-Type: its value, in lower case, and its parameters (RFC 2045, RFC 2231)."""
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
    """A parameter that came in sections, or with a character set: `utf-8'en'na%C3%AFve` (RFC 2231, section 4)."""
    first, extended = sections[0]
    charset, _, rest = first.partition("'") if extended and first.count("'") >= 2 else ("utf-8", "", "'" + first)
    sections = [(rest.partition("'")[2], extended), *sections[1:]]
    data = b"".join(
        unquote_to_bytes(text) if extended else text.encode(errors="replace") for text, extended in sections
    )
    return to_text(data, charset or "utf-8")


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|<[^<>]*>?|[,;:()]|[^",;:()<>]+|>', re.DOTALL)


def addresses(value: str) -> list[str]:
    """What stands where a list of addresses has its addresses (RFC 5322, section 3.4), be they any or not.

    Display names, comments and the names of groups are left out.
    """
    found = [""]
    in_angles = False
    depth = 0  # of comments
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
    """A date (RFC 5322, section 3.3) with its zone, or None for what is no date."""
    try:
        when = parsedate_to_datetime(value[:100])
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


_ID = re.compile(r"<[!-;=?-~]{1,250}>")


def message_ids(value: str) -> list[str]:
    """The message ids in a field (RFC 5322, section 3.6.4): printable, and short enough for a line."""
    return [found for found in _ID.findall(value) if "@" in found]
