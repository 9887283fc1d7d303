"""HTML as readable text: blocks as lines, links with their addresses, without scripts and styles.

The parser accepts any order of tags, as browsers do, in one pass. (The standard library's `html.parser` needs more than
a minute for 100 KB of `<a <a <a …`.)
"""

from __future__ import annotations

import html
import re

# Blocks with an empty line before and after; all blocks begin and end a line.
_APART = {"blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "table", "ul"}
_BLOCKS = _APART | {
    "address",
    "article",
    "body",
    "br",
    "caption",
    "center",
    "dd",
    "div",
    "dl",
    "dt",
    "figure",
    "footer",
    "form",
    "header",
    "hr",
    "li",
    "main",
    "nav",
    "section",
    "tr",
}
_TOKEN = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(?:script|style|title|template|noframes)\b.*?(?:</(?:script|style|title|template|noframes)[^<>]*>?|\Z)"
    r"|<(?P<end>/?)(?P<tag>[a-z][a-z0-9:-]*)(?P<attributes>[^<>]*)>?"
    r"|<[!?/][^<>]*>?"
    r"|(?P<text>(?:[^<]+|<(?![a-z/!?]))+)",
    re.DOTALL | re.IGNORECASE,
)
_ATTRIBUTE = r"""(?:^|[\s"'/]){}\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)"""
_HREF = re.compile(_ATTRIBUTE.format("href"), re.IGNORECASE)
_ALT = re.compile(_ATTRIBUTE.format("alt"), re.IGNORECASE)
_SPACE = re.compile(r"[ \t\r\n\f]+")
_NO_LINK = re.compile(r"#|javascript:|data:|cid:", re.IGNORECASE)
# `html.unescape` would pass these to `int`, which refuses more than 4300 digits.
_ENDLESS = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")

LONGEST_LINK = 500  # characters


def plain(source: str) -> str:
    """Return the text of an HTML document, without trailing spaces and repeated empty lines."""
    page = _Page()
    for token in _TOKEN.finditer(source):
        if token["text"]:
            page.write(token["text"])
        elif token["tag"]:
            page.tag(token["tag"].lower(), bool(token["end"]), token["attributes"][:8192])
    return page.finished()


def links(source: str) -> list[str]:
    """Return the addresses of a document's links in order, without those within the document and scripts."""
    tags = (token for token in _TOKEN.finditer(source) if token["tag"] and not token["end"])
    found = [_attribute(_HREF, tag["attributes"][:8192]) for tag in tags if tag["tag"].lower() in {"a", "area"}]
    return [link for link in found if link and not _NO_LINK.match(link)]


def _unescaped(text: str) -> str:
    return html.unescape(_ENDLESS.sub("\N{REPLACEMENT CHARACTER}", text)).replace("\N{NO-BREAK SPACE}", " ")


def _attribute(pattern: re.Pattern[str], attributes: str) -> str:
    found = pattern.search(attributes)
    return _SPACE.sub(" ", _unescaped(found[1].strip("\"'"))).strip() if found else ""


class _Page:
    """The text under construction."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []  # pieces of the last line
        self._preformatted = 0
        self._link = ""
        self._linked: list[str] = []  # text of the open link

    def write(self, text: str) -> None:
        text = _unescaped(text)
        if self._preformatted:
            first, *rest = text.split("\n")
            self._line.append(first)
            for line in rest:
                self._end_line()
                self._line.append(line)
            return
        text = _SPACE.sub(" ", text)
        if not self._line or self._line[-1].endswith(" "):
            text = text.removeprefix(" ")
        if text:
            self._line.append(text)
            self._linked.append(text)

    def tag(self, name: str, ends: bool, attributes: str) -> None:
        if name in _BLOCKS:
            if self._line or name == "br":
                self._end_line()
            if name in _APART and self._lines:
                self._lines.append("")
        if name == "pre":
            self._preformatted = max(0, self._preformatted + (-1 if ends else 1))
        elif name == "li" and not ends:
            self._line.append("- ")
        elif name in {"td", "th"} and not ends and self._line:
            self._line.append("  ")
        elif name == "hr":
            self._lines.append("-" * 20)
        elif name == "img" and (alternative := _attribute(_ALT, attributes)):
            self.write(f"[{alternative}]")
        elif name == "a":
            self._close_link()
            self._link = "" if ends else _attribute(_HREF, attributes)
            self._linked = []

    def _close_link(self) -> None:
        text = "".join(self._linked).strip()
        if self._link and not _NO_LINK.match(self._link) and self._link.removeprefix("mailto:") != text:
            self._line.append(f" <{self._link[:LONGEST_LINK]}>")
        self._link = ""

    def _end_line(self) -> None:
        self._lines.append("".join(self._line).rstrip())
        self._line = []

    def finished(self) -> str:
        self._close_link()
        self._end_line()
        kept = [line for number, line in enumerate(self._lines) if line or (number and self._lines[number - 1])]
        return "\n".join(kept).strip("\n")
