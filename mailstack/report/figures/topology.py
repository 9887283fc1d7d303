"""The lab's parts and the journeys of mails through them, leg by leg, with the protection of each leg.

The layout is that of textbooks: user agents at the top, MTAs and the mailbox below; the sender on the left, the
recipient on the right.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailstack.model import Json
from mailstack.report.figures import svg
from mailstack.report.figures.path import Leg, legs

WIDTH = 920.0
_LANE = 62.0  # px between the paths of two mails
_TOP = 196.0  # px: y of the boxes of MTAs
_AGENT = 62.0  # px: y of the boxes of user agents
_LEFT = {"sender": 26.0, "postfix": 400.0, "dovecot": 730.0}
_WIDE = 164.0
_CLASSES = ("first", "second")


def topology(journeys: Mapping[str, Json]) -> str:
    """Draw the documents of one or two journeys, keyed by their names in the legend; return SVG."""
    paths = {name: legs(journey) for name, journey in journeys.items()}
    tall = 40 + _LANE * max(len(paths), 1)
    used = {service for path in paths.values() for leg in path for service in (leg.origin, leg.target)}
    parts = [_parts(tall, used)]
    for number, path in enumerate(paths.values()):
        parts.append(_draw_path(path, number, len(paths), tall))
    legend = _TOP + tall + 44
    for number, (name, journey) in enumerate(journeys.items()):
        y = legend + 22 * number
        parts.append(
            svg.element(
                "g",
                svg.element("line", x1=10, y1=y, x2=58, y2=y, class_=_stroke(number)),
                svg.text(70, y + 4, svg.shorten(f"{name}: {journey['sentence']}", 110)),
                class_=_CLASSES[number % 2],
            )
        )
    height = legend + 22 * len(paths) + 4
    description = " ".join(f"{name}: {_description(paths[name])} {journeys[name]['sentence']}." for name in journeys)
    return svg.figure("topology", (WIDTH, height), "The lab's services and the path of the mail", description, parts)


def _parts(tall: float, used: set[str]) -> str:
    """Draw the boxes: the student's machine, the provider, the recipient. Services without a mail are faint."""

    def panel(x: float, y: float, wide: float, down: float, name: str) -> str:
        frame = svg.element("rect", x=x, y=y, width=wide, height=down, rx=6, class_="panel")
        return frame + svg.text(x + 14, y + 22, name, "small quiet strong")

    def box(x: float, y: float, down: float, name: str, what: str, faint: bool = False) -> str:
        return svg.element(
            "g",
            svg.element("rect", x=x, y=y, width=_WIDE, height=down, rx=3, class_="box"),
            svg.text(x + 12, y + 21, name, "strong"),
            svg.text(x + 12, y + 37, what, "small quiet"),
            class_="faint" if faint else "",
        )

    left, middle, right = _LEFT.values()
    return svg.element(
        "g",
        panel(left - 16, 8, _WIDE + 32, _TOP + tall + 6, "The student's machine"),
        panel(middle - 16, _TOP - 44, right + _WIDE + 32 - middle, tall + 58, "The provider"),
        panel(right - 16, 8, _WIDE + 32, _AGENT + 44, "The recipient"),
        box(left, _AGENT - 20, 48, "user agent", "mail, sendmail"),
        box(right, _AGENT - 20, 48, "user agent", "reads over IMAP"),
        box(left, _TOP, tall, "sender", "MTA: Postfix, its queue", "sender" not in used),
        box(middle, _TOP, tall, "postfix", "MTA: Postfix, its queue", "postfix" not in used),
        box(right, _TOP, tall, "dovecot", "LMTP, mailboxes, IMAP", "dovecot" not in used),
        _arrow([(right + _WIDE - 30, _TOP), (right + _WIDE - 30, _AGENT + 28)], "line dotted", "line"),
        svg.text(right + _WIDE - 40, _TOP - 56, "IMAP", "small quiet", "end"),
    )


def _draw_path(path: list[Leg], number: int, paths: int, tall: float) -> str:
    """Draw a journey, with its legs numbered in order."""
    y = _TOP + tall - _LANE * (paths - number) + 26
    stroke, parts = _stroke(number), []
    for count, leg in enumerate(path, start=1):
        if leg.target not in _LEFT:
            if leg.origin in _LEFT and not leg.target:
                parts.append(_kept(leg, y, "waits here"))
            continue
        if leg.origin not in _LEFT:
            parts.append(_submission(leg, number, stroke, count))
            continue
        start, end = _LEFT[leg.origin] + _WIDE, _LEFT[leg.target]
        parts += [_arrow([(start, y), (end, y)], stroke), _mark(start + 34, y, count), _protection(leg, start + 52, y)]
        parts.append(_kept(leg, y))
        if leg.target == "dovecot" and leg.reply.startswith("2"):
            parts.append(svg.text(end + 12, y + 4, "in the mailbox", "small strong fill"))
    return svg.element("g", *parts, class_=_CLASSES[number % 2])


def _kept(leg: Leg, y: float, words: str = "") -> str:
    """Draw into a service's box its queue id, and how long it kept the mail."""
    x = _LEFT[leg.origin] + 12
    if not words and leg.kept is not None:
        words = f"kept it for {svg.milliseconds(leg.kept)}"
    return svg.text(x, y - 2, leg.queue_id, "small code fill") + svg.text(x, y + 14, words, "small quiet")


def _submission(leg: Leg, number: int, stroke: str, count: int) -> str:
    """Draw the leg from the user agent: down to the MTA on its machine, or across to the provider's MTA."""
    if leg.target == "sender":
        x = _LEFT["sender"] + 40 + 46 * number
        return _arrow([(x, _AGENT + 28), (x, _TOP)], stroke) + _mark(x, _AGENT + 84, count)
    start, x, y = _LEFT["sender"] + _WIDE, _LEFT[leg.target] + 100 + 24 * number, _AGENT + 6 + 16 * number
    path = _arrow([(start, y), (x, y), (x, _TOP)], stroke)
    return path + _mark(start + 34, y, count) + _protection(leg, start + 52, y)


def _protection(leg: Leg, x: float, y: float) -> str:
    """Draw the protocol above the line, and its protection below."""
    port = f", port {leg.port}" if leg.port else ""
    tls = leg.tls.split()[0] if leg.tls else "UNIX socket" if leg.local else "no TLS"
    parts = [
        svg.text(x, y - 8, f"{leg.protocol}{port}", "small strong fill"),
        "" if leg.local else _lock(x, y + 8, open_=not leg.tls),
        svg.text(x if leg.local else x + 15, y + 17, f"{tls}, SASL" if leg.sasl_user else tls, "small"),
    ]
    if leg.sasl_user:
        parts.append(svg.text(x, y + 32, svg.shorten(f"as {leg.sasl_user}", 20), "small quiet"))
    return svg.element("g", *parts)


def _lock(x: float, y: float, *, open_: bool) -> str:
    shackle = f"M{x + 2:g} {y + 4:g}v-2a3 3 0 0 1 6 0" + ("" if open_ else "v2")
    return svg.element("path", d=shackle, class_="line") + svg.element(
        "rect", x=x, y=y + 4, width=10, height=7, rx=1, class_="lock"
    )


def _mark(x: float, y: float, count: int) -> str:
    return svg.element("circle", cx=x, cy=y, r=9, class_="fill") + svg.text(
        x, y + 4, count, "small onfill strong", "middle"
    )


def _arrow(points: list[tuple[float, float]], stroke: str, head: str = "fill") -> str:
    """Draw a line through `points` with an arrowhead at its end. Each part is parallel to an axis."""
    (x0, y0), (x, y) = points[-2:]
    along = (x > x0) - (x < x0), (y > y0) - (y < y0)
    tip = [(x, y)]
    for side in (1, -1):
        tip.append((x - 9 * along[0] + 4.5 * side * along[1], y - 9 * along[1] + 4.5 * side * along[0]))
    shaft = " ".join(f"{a:g},{b:g}" for a, b in [*points[:-1], (x - 6 * along[0], y - 6 * along[1])])
    return svg.element("polyline", points=shaft, class_=stroke) + svg.element(
        "polygon", points=" ".join(f"{a:g},{b:g}" for a, b in tip), class_="tip" if head == "line" else head
    )


def _stroke(number: int) -> str:
    return "stroke dashed" if number % 2 else "stroke"


def _description(path: list[Leg]) -> str:
    """Describe a journey in words, for screen readers."""
    steps = []
    for leg in path:
        port = f" to port {leg.port}" if leg.port else ""
        bare = ", over a socket" if leg.local else ", without TLS"
        safe = f", {leg.tls}" if leg.tls else bare if leg.protocol else ""
        user = f", as {leg.sasl_user}" if leg.sasl_user else ""
        steps.append(f"from {leg.origin or 'the user agent'} to {leg.target or 'no next hop yet'}{port}{safe}{user}")
    return "; ".join(steps).capitalize() + "."
