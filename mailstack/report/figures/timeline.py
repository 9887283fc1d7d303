"""The hops of a journey on a time scale: how long each hop had the mail, its events, and Postfix's delays.

Each hop has a lane. A bar goes from the mail's arrival to its departure, with the events as dots. Below it are the
four delays that Postfix logs (postconf(5), delay_logging_resolution_limit: before the queue, in the queue manager,
connection setup, transmission). The x position is the time. Labels that would overlap go on separate lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailstack.model import Json
from mailstack.report.figures import svg

LEFT, PLOT, RIGHT = 148.0, 500.0, 272.0  # px: the names of lanes, the time scale, room for the last labels
DELAYS = ("before the queue", "in the queue manager", "connecting", "handing over")
MAX_LABELLED = 14  # labelled events in a lane; the others are dots only
_ROW, _BAR, _STRIP, _SIZE = 17.0, 16.0, 9.0, 11.5  # px


@dataclass(frozen=True, slots=True)
class Label:
    """The label of a moment. It starts at `x`, on line `row` above the lane (0 is the lowest)."""

    x: float
    row: int
    words: str


def timeline(journey: Json, *, span: float | None = None) -> str:
    """Draw the document of a Journey; return SVG. `span` is the length of the scale in ms, by default the journey's
    own.

    Journeys drawn with one `span` can be compared.
    """
    lanes = _lanes(journey)
    span = max(span or 0.0, end(journey), 0.1)
    parts: list[str] = []
    y = 14.0
    drawn = []
    for lane in lanes:
        labelled = lane["events"][:MAX_LABELLED]
        labels = place_labels([(x_of(event["milliseconds"], span), words(event)) for event in labelled])
        y += (max((label.row for label in labels), default=-1) + 1) * _ROW + 12
        drawn.append(_lane(lane, labels, y, span, len(lane["events"]) - MAX_LABELLED))
        y += _BAR + (_STRIP + 26 if _delays(lane) else 14)
    bottom = y + 4
    parts.append(_scale(span, bottom))
    parts += drawn
    description = f"{journey['sentence']}. " + " ".join(
        f"{lane['service']} had it from {_moment(lane['arrived'])} to {_moment(lane['left'])}." for lane in lanes
    )
    title = f"Timeline of {journey['message_id'] or 'the mail'}"
    height = bottom + 44 + (22 if any(_delays(lane) for lane in lanes) else 0)
    if any(_delays(lane) for lane in lanes):
        parts.append(_legend(bottom + 52))
    return svg.figure("timeline", (LEFT + PLOT + RIGHT, height), title, description, parts)


def x_of(milliseconds: float, span: float) -> float:
    """Return the x coordinate of a moment, in px from the left edge of the figure."""
    return LEFT + PLOT * min(max(milliseconds, 0.0), span) / span


def end(journey: Json) -> float:
    """Return the moment of the last event of a journey, in milliseconds since submission."""
    times = [event["milliseconds"] for event in journey["events"]]
    times += [hop[key] for hop in journey["hops"] for key in ("arrived_milliseconds", "left_milliseconds")]
    return max((time for time in times if time is not None), default=0.0)


def place_labels(moments: list[tuple[float, str]]) -> list[Label]:
    """Place labels (x, words), given in order of time, so that none covers another or another's leader line.

    Later labels are lower, so that a reader goes down the lines as time passes.
    """
    placed: list[Label] = []
    for x, content in reversed(moments):
        reaches = x + svg.width(content, _SIZE) + 8
        row = max((label.row + 1 for label in placed if label.x <= reaches), default=0)
        placed.append(Label(x, row, content))
    return placed[::-1]


def ticks(span: float) -> list[float]:
    """Return three to eleven round moments from 0 to `span`; the step is 1, 2 or 5 times a power of ten."""
    step = 10.0**-3
    while True:
        for factor in (1, 2, 5):
            if span / (step * factor) <= 10:
                count = int(span / (step * factor) + 1e-9)
                return [number * step * factor for number in range(count + 1)]
        step *= 10


def _lanes(journey: Json) -> list[Json]:
    """Return a lane for each hop, and for each service that took part without a queue."""
    lanes: list[Json] = [
        {
            "service": hop["service"],
            "queue_id": hop["queue_id"],
            "arrived": hop["arrived_milliseconds"],
            "left": hop["left_milliseconds"],
            "events": [],
        }
        for hop in journey["hops"]
    ]
    for event in journey["events"]:
        if event["milliseconds"] is None:
            continue
        same = [lane for lane in lanes if lane["service"] == event["service"]]
        lane = next((lane for lane in same if lane["queue_id"] == event["queue_id"]), same[0] if same else None)
        if lane is None:
            lane = {"service": event["service"], "queue_id": "", "arrived": None, "left": None, "events": []}
            lanes.append(lane)
        lane["events"].append(event)
    return lanes


def _lane(lane: Json, labels: list[Label], y: float, span: float, unlabelled: int) -> str:
    """Draw a lane: name, bar, events and delays."""
    parts = [svg.text(0, y + 8, lane["service"], "strong"), svg.text(0, y + 23, lane["queue_id"], "small quiet code")]
    arrived, left = lane["arrived"], lane["left"]
    parts.append(svg.element("line", x1=LEFT, y1=y + 8, x2=LEFT + PLOT, y2=y + 8, class_="rule faint"))
    if arrived is not None:
        x, until = x_of(arrived, span), x_of(span if left is None else left, span)
        shape = {"x": x, "y": y, "width": max(until - x, 1.5), "height": _BAR, "rx": 2}
        parts.append(svg.element("rect", class_="wait", **shape))
        if left is not None:
            parts.append(
                svg.text(until + 10, y + 12, f"left after {svg.milliseconds(left - arrived)}", "small quiet halo")
            )
        else:
            parts.append(svg.text(until + 10, y + 12, "still queued", "small quiet halo"))
    for label in labels:
        base = y - 6 - label.row * _ROW
        parts.append(svg.element("line", x1=label.x, y1=base - 10, x2=label.x, y2=y + 8, class_="leader"))
        parts.append(svg.text(label.x + 4, base, label.words, "small halo"))
    for event in lane["events"]:
        parts.append(svg.element("circle", cx=x_of(event["milliseconds"], span), cy=y + 8, r=3.5, class_="dot"))
    if unlabelled > 0:
        parts.append(svg.text(LEFT + PLOT + 10, y - 6, f"and {unlabelled} more events", "small quiet halo"))
    parts += _strips(lane, y + _BAR + 4, span)
    return svg.element("g", *parts)


def _delays(lane: Json) -> list[Json]:
    return [event for event in lane["events"] if event["delays"]]


def _strips(lane: Json, y: float, span: float) -> list[str]:
    """Draw the four delays of the lane's last delivery attempt to scale, from the mail's arrival on."""
    events = _delays(lane)
    if not events:
        return []
    x = start = x_of(lane["arrived"] or 0.0, span)
    parts = []
    for number, seconds in enumerate(events[-1]["delays"]):
        until = min(x + PLOT * seconds * 1000 / span, LEFT + PLOT)
        if until > x:
            box = {"x": x, "y": y, "width": until - x, "height": _STRIP}
            parts.append(svg.element("rect", class_=f"delay delay{number}", **box))
        x = until
    words = f"delays {svg.delays(events[-1]['delays'])}"
    label_x = x + 8 if x < LEFT + PLOT else LEFT + PLOT + 10
    parts.append(svg.text(max(label_x, start + 4), y + 9, words, "small quiet halo"))
    return parts


def _scale(span: float, bottom: float) -> str:
    parts = [svg.element("line", x1=LEFT, y1=bottom, x2=LEFT + PLOT, y2=bottom, class_="line")]
    for time in ticks(span):
        x = x_of(time, span)
        parts.append(svg.element("line", x1=x, y1=8, x2=x, y2=bottom + 5, class_="rule grid"))
        parts.append(svg.text(x, bottom + 19, svg.milliseconds(time) if time else "0", "small quiet", "middle"))
    parts.append(svg.text(0, bottom + 19, "since submission", "small quiet halo"))
    return svg.element("g", *parts)


def _legend(y: float) -> str:
    parts = [svg.text(0, y + 9, "Postfix's delays", "small quiet")]
    x = LEFT
    for number, name in enumerate(DELAYS):
        box = {"x": x, "y": y, "width": 22, "height": _STRIP}
        parts += [svg.element("rect", class_=f"delay delay{number}", **box), svg.text(x + 28, y + 9, name, "small")]
        x += 28 + svg.width(name, _SIZE) + 16
    return svg.element("g", *parts)


def words(event: Json) -> str:
    """Return a short form of an event: its kind, without the details, and the reply's codes."""
    what = re.split(r": | [<\[(]", event["what"])[0]
    codes = [str(code) for code in (event["code"], event["enhanced"]) if code]
    return svg.shorten(" ".join([what, *codes]), 38)


def _moment(value: float | None) -> str:
    return "an unknown time" if value is None else svg.milliseconds(value)
