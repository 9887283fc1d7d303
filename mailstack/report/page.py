"""The report of an experiment: one self-contained page of HTML. A pure function of its document.

The page has no script and loads nothing: styles and figures are inline, images are `data:` URLs. Its
Content-Security-Policy (W3C, CSP Level 3) enforces that, and names the styles by their digests. So even if content
of a mail came through unescaped, it could neither run, nor load anything, nor imitate the report.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import functools
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mailstack.model import Json
from mailstack.report.failing import failures
from mailstack.report.figures import path, svg
from mailstack.report.figures.sequence import sequence
from mailstack.report.figures.timeline import end, timeline
from mailstack.report.figures.topology import topology
from mailstack.text.durations import spoken

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).parent / "templates"

# Types of images that the page shows. For others it gives only the name.
_PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})

_TALL = 40  # lines of text that the page shows without a separate scroll bar
_COLUMNS = 96  # characters in a line of evidence, roughly

_NAMES = {
    "mailstack": "mailstack",
    "engine": "Docker Engine",
    "compose": "Docker Compose",
    "host": "Host",
    "tag": "Image tag",
    "base": "Base image layer",
    "debian": "Debian",
    "postfix": "Postfix",
    "dovecot": "Dovecot",
    "mailutils": "GNU Mailutils",
    "cyrus_sasl": "Cyrus SASL",
    "python": "Python",
    "kernel": "Kernel",
}


def render(document: Json, *, alone: bool = False) -> str:
    """Render the document of `mailstack experiment --json` (docs/json.md) as a complete page, for UTF-8.

    `alone`: there are no other files of the report beside it.
    """
    from markupsafe import Markup

    document = {"author": "", "lab": {}, "settings": [], "configuration": "", "left_out": [], **document}
    document["settings"] = [{"step": "", **row} for row in document["settings"]]
    journeys = {_title(name): journey for name, journey in document["journeys"].items()}
    span = max((end(journey) for journey in journeys.values()), default=0.0)
    # Markup is safe here: figures escape their input.
    topology_figure = Markup(topology(journeys))  # noqa: S704
    timelines = {name: Markup(timeline(journey, span=span)) for name, journey in journeys.items()}  # noqa: S704
    dialogue_figure = Markup(sequence(document["dialogue"])) if document["dialogue"] else ""  # noqa: S704
    css = svg.colours() + (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    return svg.clean(
        _environment()
        .get_template("report.html.j2")
        .render(
            document,
            topology_figure=topology_figure,
            timelines=timelines,
            dialogue_figure=dialogue_figure,
            models=journeys,
            comparison=compare(journeys),
            failures=failures(document["steps"]),
            numbers={step["id"]: number for number, step in enumerate(document["steps"], start=1)},
            judged={row["step"] for row in document["settings"]} - {""},
            conditions=[
                (_NAMES.get(key, _title(key)), value)
                for key, value in document["facts"].items()
                if not isinstance(value, dict)
            ],
            images=document["facts"].get("images", {}),
            alone=alone,
            css=Markup(css),  # noqa: S704  (the package's own)
            policy=policy(css, *_styles(topology_figure, dialogue_figure, *timelines.values())),
        )
    )


def _styles(*figures: str) -> list[str]:
    """Return the style sheets in these figures, each once. All markup in a figure is the figure's own."""
    return list(dict.fromkeys(style for figure in figures for style in re.findall("<style>(.*?)</style>", figure)))


def policy(*styles: str) -> str:
    """Return the Content-Security-Policy of a page that contains these style sheets only."""
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in styles)
    return f"default-src 'none'; style-src {digests}; img-src data:; base-uri 'none'; form-action 'none'"


def compare(journeys: Json) -> list[tuple[str, list[str]]]:
    """Compare journeys: return rows with a name and one cell for each journey."""
    paths = [path.legs(journey) for journey in journeys.values()]

    def row(name: str, cell: Any) -> tuple[str, list[str]]:
        return name, ["; ".join(filter(None, map(cell, legs))) or "–" for legs in paths]

    def kept(leg: path.Leg) -> str:
        long = f" for {svg.milliseconds(leg.kept)}" if leg.kept is not None else ""
        return f"{leg.origin}{long}" if leg.origin else ""

    def contacted(leg: path.Leg) -> str:
        port = f" port {leg.port}" if leg.port else ""
        return f"{leg.target}{port}, {leg.protocol}" if leg.protocol and leg.target else ""

    return [
        (
            "Hops that kept the mail",
            [str(sum(not hop["notice"] for hop in journey["hops"])) for journey in journeys.values()],
        ),
        row("Kept by", kept),
        row("Contacted", contacted),
        row("Encrypted", lambda leg: f"to {leg.target}: {leg.tls}" if leg.tls else ""),
        row("Authenticated as", lambda leg: leg.sasl_user),
        ("Outcome", [journey["sentence"] for journey in journeys.values()]),
    ]


def picture(evidence: Json) -> str:
    """Return the `data:` URL of an image (RFC 2397); "" for a type that the page must not show."""
    if evidence["type"] not in _PICTURES:
        return ""
    try:
        content = base64.b64decode(evidence["base64"], validate=True)
    except (binascii.Error, ValueError):
        return ""
    return f"data:{evidence['type']};base64,{base64.b64encode(content).decode()}" if content else ""


def breakable(text: str) -> str:
    """Return a text as markup that may be broken after underscores: names of parameters are long."""
    import markupsafe

    return markupsafe.Markup("_<wbr>").join(text.split("_"))


def tall(text: str) -> bool:
    """Return whether a text is too long to be shown in the page at full height."""
    return sum(1 + len(line) // _COLUMNS for line in text.splitlines()) > _TALL


def moment(iso: str) -> str:
    """Format an ISO time for people: `2026-11-23T21:24:01.9+00:00` becomes `23 November 2026, 21:24:01 UTC`."""
    time = datetime.datetime.fromisoformat(iso)
    zone = {"": "", "UTC": " UTC"}.get(time.tzname() or "", f" {time.tzname()}")
    return f"{time.day} {_MONTHS[time.month - 1]} {time.year}, {time:%H:%M:%S}{zone}"


def release(version: str) -> str:
    """Return a version without a distribution's suffixes: `1:2.4.1+dfsg1-6+deb13u7` becomes `2.4.1`."""
    return re.split(r"[-+~ ]", version.rpartition(":")[2])[0]


def identifier(text: str) -> str:
    """Return a word for use as an anchor in the page."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


# Not from strftime, whose names depend on the locale.
_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "picture": picture,
        "tall": tall,
        "breakable": breakable,
        "moment": moment,
        "release": release,
        "seconds": spoken,
        "milliseconds": svg.milliseconds,
        "delays": svg.delays,
        "identifier": identifier,
    }
    return environment


def _title(name: str) -> str:
    return name.replace("-", " ").replace("_", " ").capitalize()
