"""Parsing of a mail into its MIME parts (RFC 2045 and 2046), safely and in one pass.

Parts are offsets in the mail's bytes: nothing is copied until a part is read. Nothing recurses, so nesting may be of
any depth. For missing or invalid fields the defaults of RFC 2045, section 5.2, apply.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mailstack.message.fields import LONGEST, decoded, from_base64, parameters, raw_text, to_text

MOST_PARTS = 1000  # of one mail; the rest stays in the last part
MOST_FIELDS = 1000  # of one header


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a mail; the first part is the mail itself."""

    fields: tuple[tuple[str, str], ...]  # (name in lower case, value), unfolded and not decoded
    start: int  # offsets of the body in the mail, in bytes
    end: int
    depth: int  # number of enclosing multiparts
    type: str = "text/plain"
    parameters: Mapping[str, str] = field(default_factory=dict)  # of Content-Type
    disposition: str = ""  # inline, attachment (RFC 2183)
    name: str = ""  # file name from the sender: never use it as a path
    encoding: str = ""
    has_parts: bool = False

    def value(self, name: str) -> str:
        """Return the first field of this name (in lower case), or “”."""
        return next((value for each, value in self.fields if each == name), "")


_FIELD = re.compile(rb"([!-9;-~]{1,200})[ \t]*:")
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}")
_DELIMITER = re.compile(rb"^--([^\n]{0,200})", re.MULTILINE)


def header(
    raw: bytes, start: int = 0, boundaries: Mapping[bytes, int] | None = None
) -> tuple[tuple[tuple[str, str], ...], int]:
    """Return the fields of the header that begins at `start`, and the offset of the body.

    A header ends with an empty line, with a line that is not a field, or at one of the `boundaries`.
    """
    places: list[tuple[bytes, int, int]] = []
    at, fields = start, 0
    while at < len(raw):
        end = raw.find(b"\n", at) + 1 or len(raw)
        if raw[at : at + 2] == b"\r\n" or raw[at : at + 1] == b"\n":
            at = end
            break
        if boundaries and raw.startswith(b"--", at) and _is_delimiter(raw[at + 2 : min(end, at + 202)], boundaries):
            break
        name_match = _FIELD.match(raw, at)
        if name_match is not None:
            fields += 1
            if fields <= MOST_FIELDS:
                places.append((name_match[1], name_match.end(), end))
        elif raw[at : at + 1] not in {b" ", b"\t"} or not fields:
            break
        elif fields <= MOST_FIELDS:
            places[-1] = (*places[-1][:2], end)
        at = end
    return tuple((name.decode().lower(), _unfolded(raw[first:last][:LONGEST])) for name, first, last in places), at


def _unfolded(value: bytes) -> str:
    return raw_text(_FOLD.sub(b"", value).strip(b" \t\r\n"))


def _is_delimiter(line: bytes, boundaries: Mapping[bytes, int]) -> bool:
    line = line.rstrip()
    return line in boundaries or line.removesuffix(b"--") in boundaries


def parts(raw: bytes) -> list[Part]:
    """Return the mail and all its parts in order; an attached mail (message/rfc822) is one part, and is not parsed."""
    found: list[Part] = []
    boundaries: dict[bytes, int] = {}  # of the open multiparts, outermost first -> index of the part
    begin: int | None = 0
    while begin is not None:
        inside = found[list(boundaries.values())[-1]] if boundaries else None
        fields, at = header(raw, begin, boundaries)
        part = _described(Part(fields, at, len(raw), len(boundaries)), inside)
        found.append(part)
        boundary = part.parameters.get("boundary", "").encode("utf-8", errors="replace").rstrip()
        if part.type.startswith("multipart/") and boundary:
            boundaries.setdefault(boundary, len(found) - 1)
        if len(found) == MOST_PARTS:
            break
        end, begin = _next(raw, at, boundaries)
        found[-1] = replace(part, end=max(at, end))
        if begin is not None:
            enclosing = list(boundaries.values())[-1]
            found[enclosing] = replace(found[enclosing], has_parts=True)
    return found


def _next(raw: bytes, at: int, boundaries: dict[bytes, int]) -> tuple[int, int | None]:
    """Return the end of the part whose body begins at `at`, and the start of the next; close multiparts that end.

    The delimiter of an outer multipart ends all parts within it (RFC 2046, section 5.1.2).
    """
    end = None
    for delimiter in _DELIMITER.finditer(raw, at):
        line = delimiter[1].rstrip()
        closes = line not in boundaries
        boundary = line[:-2] if closes and line.endswith(b"--") else line
        if boundary not in boundaries:
            continue
        if end is None:
            end = delimiter.start()
            end -= 2 if raw[end - 2 : end] == b"\r\n" else 1  # the line end belongs to the delimiter
        opened = list(boundaries)
        for inner in opened[opened.index(boundary) + (not closes) :]:
            del boundaries[inner]
        if not closes:
            return end, (raw.find(b"\n", delimiter.start()) + 1) or len(raw)
    return len(raw) if end is None else end, None


def _described(part: Part, inside: Part | None) -> Part:
    """Return the part with the attributes from its header."""
    kind, given = parameters(part.value("content-type"))
    if not _TYPE.fullmatch(kind):
        kind = "message/rfc822" if inside is not None and inside.type == "multipart/digest" else "text/plain"
    disposition, more = parameters(part.value("content-disposition"))
    return replace(
        part,
        type=kind,
        parameters=given,
        disposition=disposition,
        name=decoded(more.get("filename") or given.get("name", "")),
        encoding=parameters(part.value("content-transfer-encoding"))[0],
    )


def content(raw: bytes, part: Part) -> bytes:
    """Return a part's body, decoded (RFC 2045, section 6), or unchanged if its encoding is unknown."""
    body = raw[part.start : part.end]
    if part.encoding == "base64":
        return from_base64(body)
    if part.encoding == "quoted-printable":
        return binascii.a2b_qp(body)
    return body


def text(raw: bytes, part: Part) -> str:
    """Return a part's body as text, with LF as line end."""
    shown = to_text(content(raw, part), part.parameters.get("charset", "utf-8"))
    return shown.replace("\r\n", "\n").replace("\r", "\n")
