"""A dialogue as a sequence diagram: commands and replies as arrows, with their meanings next to them.

The shaded bands show the extent of TLS and of the authentication.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mailstack.model import Json
from mailstack.report.figures import svg

WIDTH = 920.0
_CLIENT, _SERVER, _EXPLANATION = 84.0, 600.0, 626.0  # px: x of the lifelines and of the explanations
_SIZE, _LINE = 11.5, 16.0  # px: font size and line height
_PAD = 12.0  # px between a lifeline and the text next to it
_MAX_LINES = 3  # lines of a command or a reply; its <title> has the full text
_MAX_MESSAGE_LINES = 26  # lines of a message

_STYLE = (
    ".sequence .tls{fill:var(--f-first);opacity:.09}.sequence .auth{fill:var(--f-second);opacity:.13}"
    ".sequence .life{stroke:var(--f-line);stroke-width:1.5;stroke-dasharray:2 4}"
    ".sequence .said{stroke:var(--f-ink);stroke-width:1.4}.sequence .head{fill:var(--f-ink)}"
    ".sequence .refused .said{stroke:var(--f-fail)}"
    ".sequence .refused .head,.sequence .refused .code{fill:var(--f-fail)}"
    ".sequence .note{fill:var(--f-ground);stroke:var(--f-line)}.sequence .of-tls{fill:var(--f-first)}"
    ".sequence .of-auth{fill:var(--f-second)}"
)


@dataclass(frozen=True, slots=True)
class _Row:
    """An exchange and its layout: text on the arrow (or in the note), text next to it, and the height in px."""

    exchange: Json
    words: tuple[str, ...]
    explanation: tuple[tuple[str, str], ...]  # (line, classes)
    height: float

    @property
    def note(self) -> bool:
        """Return whether this exchange is the message."""
        return self.exchange["from"] == "client" and len(self.exchange["lines"]) > 1


def sequence(dialogue: Json) -> str:
    """Draw the document of a Dialogue; return SVG."""
    rows = [_layout(exchange) for exchange in dialogue["exchanges"]]
    auth = [number for number, row in enumerate(rows) if row.exchange["step"] == "auth"]
    starts = [n for n, row in enumerate(rows) if row.exchange["step"] == "tls" and row.exchange["code"] == 220][:1]
    y, tls_from, auth_from = 58.0, 0.0, 0.0
    parts: list[str] = []
    auth_bands: list[str] = []
    for number, row in enumerate(rows):
        if auth[:1] == [number]:
            auth_from = y
            parts.append(_label(y, "authentication", "of-auth"))
            y += 24
        parts.append(_draw_row(row, y))
        y += row.height
        if auth[-1:] == [number]:
            auth_bands += _band(auth_from, y - auth_from, "auth", inset=10)
            y += 8
        if starts == [number]:
            tls_from = y + 4
            tls = dialogue["tls"]
            words = f"TLS from here on: {tls['version']}, {tls['cipher']}" if tls else "TLS from here on"
            parts.append(_label(tls_from, words, "of-tls"))
            y += 30
    bands = [*(_band(tls_from, y + 4 - tls_from, "tls") if starts else ()), *auth_bands]
    height = y + 14
    frame = [f"<style>{_STYLE}</style>", *bands, *_lifelines(dialogue, height)]
    title = f"SMTP dialogue of {dialogue['client']} and {dialogue['server']}"
    return svg.figure("sequence", (WIDTH, height), title, _description(dialogue), [*frame, *parts])


def folded(content: str, room: float, size: float = _SIZE, *, words: bool = False) -> list[str]:
    """Fold `content` into lines of at most `room` px, between `words` where possible."""
    lines, line = [], ""
    for piece in _pieces(content, words):
        if line and svg.width(line + (piece.rstrip() if words else piece), size) > room:
            lines.append(line.rstrip() if words else line)
            line = ""
        if svg.width(piece, size) > room and words:  # a word that is too wide is broken
            *whole, line = folded(line + piece, room, size)
            lines += whole
        else:
            line += piece
    return [*lines, line.rstrip() if words else line] if line or not lines else lines


def _pieces(content: str, words: bool) -> Iterator[str]:
    if not words:
        yield from content
        return
    for word in content.split():
        yield word + " "


def _layout(exchange: Json) -> _Row:
    room = _SERVER - _CLIENT - 2 * _PAD
    lines = [" ".join(line.split()) if exchange["code"] else line.expandtabs(4) for line in exchange["lines"]]
    words: list[str] = []
    message = exchange["from"] == "client" and len(lines) > 1
    if message:
        words = [_first(line, room - 2 * _PAD) for line in lines[:_MAX_MESSAGE_LINES]]
        words += [f"[… {len(lines) - _MAX_MESSAGE_LINES} more lines]"] if len(lines) > _MAX_MESSAGE_LINES else []
    else:
        if len(lines) > 1:  # a reply of several lines: its first line, then the text of the others
            more = " · ".join(line[4:] for line in lines[1:])
            lines = [lines[0], more]
        for line in lines:
            words += folded(line, room, words=True)
        if len(words) > _MAX_LINES:
            words = [*words[: _MAX_LINES - 1], _first(words[_MAX_LINES - 1] + " …" + words[_MAX_LINES], room)]
    wide = WIDTH - _EXPLANATION
    explanation = [(line, "small") for line in folded(exchange["meaning"], wide, words=True) if line]
    for source in filter(None, exchange["source"].split("; ")):
        explanation += [(line, "small quiet") for line in folded(source, wide, words=True)]
    tall = len(words) * _LINE + (38 if message else 20)
    return _Row(exchange, tuple(words), tuple(explanation), max(tall, len(explanation) * _LINE + 10))


def _first(line: str, room: float) -> str:
    """Shorten a line to `room` px; `…` marks the cut."""
    kept = folded(line, room)
    return line if len(kept) < 2 else folded(line, room - _SIZE)[0] + "…"


def _draw_row(row: _Row, y: float) -> str:
    exchange = row.exchange
    to_server = exchange["from"] == "client"
    start = y + 4
    parts = [svg.element("title", svg.escape("\n".join(exchange["lines"])))]
    base = start + len(row.words) * _LINE + (20 if row.note else 2)
    if row.note:
        parts.append(_sheet(_CLIENT + _PAD, start, _SERVER - _CLIENT - 2 * _PAD, len(row.words) * _LINE + 10))
    x = _CLIENT + _PAD * (2 if row.note else 1)
    for number, line in enumerate(row.words):
        parts.append(_fitted(x, start + 11 + number * _LINE + (4 if row.note else 0), line, "small code"))
    parts.append(_arrow(_CLIENT, _SERVER, base + 2) if to_server else _arrow(_SERVER, _CLIENT, base + 2))
    if exchange["milliseconds"] is not None:
        words = svg.milliseconds(exchange["milliseconds"])
        parts.append(svg.text(_CLIENT - _PAD, start + 11, words, "small quiet", "end"))
    for number, (line, classes) in enumerate(row.explanation):
        parts.append(_fitted(_EXPLANATION, start + 11 + number * _LINE, line, classes))
    refused = exchange["code"] is not None and exchange["code"] >= 400
    return svg.element("g", *parts, class_="refused" if refused else "")


def _fitted(x: float, y: float, content: str, classes: str) -> str:
    """Draw a line of text. Non-ASCII text, whose width depends on the fonts, is fitted to the estimated width."""
    length: object = "" if content.isascii() else svg.width(content, _SIZE)
    # Keep spaces, which XML would collapse.
    whole = content.replace(" ", "\u00a0")
    return svg.element("text", svg.escape(whole), x=x, y=y, class_=classes, textLength=length)


def _arrow(start: float, end: float, y: float) -> str:
    way = 1.0 if end > start else -1.0
    tip = f"{end - 1.5 * way:g},{y:g} {end - 10 * way:g},{y - 4:g} {end - 10 * way:g},{y + 4:g}"
    line = svg.element("line", x1=start, y1=y, x2=end - 8 * way, y2=y, class_="said")
    return line + svg.element("polygon", points=tip, class_="head")


def _sheet(x: float, y: float, wide: float, tall: float) -> str:
    """Draw a sheet of paper with a folded corner."""
    fold = 12
    outline = f"M{x:g} {y:g}h{wide - fold:g}l{fold} {fold}v{tall - fold:g}h{-wide:g}z"
    corner = f"M{x + wide - fold:g} {y:g}v{fold}h{fold}"
    return svg.element("path", d=outline, class_="note") + svg.element("path", d=corner, class_="note")


def _band(y: float, tall: float, kind: str, inset: float = 0) -> Iterator[str]:
    """Draw a tinted band on an opaque ground, so that a band on top of another has its own colour."""
    for name in ("ground", kind):
        yield svg.element("rect", x=inset, y=y, width=WIDTH - 2 * inset, height=tall, rx=4, class_=name)


def _label(y: float, words: str, classes: str) -> str:
    room = _SERVER - _CLIENT - 2 * _PAD
    return svg.text((_CLIENT + _SERVER) / 2, y + 18, _first(words, room), f"small strong {classes}", "middle")


def _lifelines(dialogue: Json, height: float) -> Iterator[str]:
    for x, name in ((_CLIENT, dialogue["client"]), (_SERVER, dialogue["server"])):
        wide = 156.0
        left = max(x - wide / 2, 1)
        yield svg.element("line", x1=x, y1=38, x2=x, y2=height - 6, class_="life")
        yield svg.element("rect", x=left, y=8, width=wide, height=30, rx=3, class_="box")
        yield svg.text(left + wide / 2, 27, _first(name, wide - 16), "strong", "middle")


def _description(dialogue: Json) -> str:
    """Describe the dialogue in words, for screen readers."""
    sentences = [f"A dialogue in {len(dialogue['exchanges'])} exchanges."]
    for exchange in dialogue["exchanges"]:
        first = svg.shorten(exchange["lines"][0] if exchange["lines"] else "", 120)
        sentences.append(f"{dialogue[exchange['from']]}: {first} ({exchange['meaning']}).")
    return " ".join(sentences)
