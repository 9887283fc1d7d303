"""SVG elements as text, with all content escaped, in colours for light and dark backgrounds.

In a page, a figure takes the page's colours (`--ink`, `--first`, …). In a separate file, it has its own.
"""

from __future__ import annotations

import html
import re
import unicodedata
import zlib
from collections.abc import Iterable

from mailstack.text.durations import spoken

# For light and dark backgrounds. Contrast is at least 4.5 : 1 for text (WCAG 2.2, 1.4.3), and 3 : 1 for lines.
LIGHT = {
    "ink": "#1b1f24",
    "muted": "#555d66",
    "line": "#868e97",
    "rule": "#d8dbdd",
    "ground": "#ffffff",
    "panel": "#f4f5f2",
    "first": "#0b5a9d",
    "second": "#9c3f06",
    "pass": "#1b6a38",
    "fail": "#a61b1b",
    "wait": "#8fb4d6",
}
DARK = {
    "ink": "#e4e6e8",
    "muted": "#a7afb8",
    "line": "#7a838d",
    "rule": "#343a40",
    "ground": "#14171a",
    "panel": "#1d2125",
    "first": "#7fb7ef",
    "second": "#f2a678",
    "pass": "#7fce9b",
    "fail": "#ff9a92",
    "wait": "#3f6288",
}


def colours() -> str:
    """Return the colours as a style sheet: custom properties that the page and its figures share."""
    given = ["".join(f"--{name}: {colour}; " for name, colour in each.items()) for each in (LIGHT, DARK)]
    return f":root {{ {given[0]}}}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {given[1]}}} }}\n"


def _own(colours: dict[str, str]) -> str:
    return ".figure{" + "".join(f"--f-{name}:var(--{name},{colour});" for name, colour in colours.items()) + "}"


STYLE = (
    _own(LIGHT)
    + f"@media screen and (prefers-color-scheme:dark){{{_own(DARK)}}}"
    + ".figure text{font:13px system-ui,-apple-system,'Segoe UI','Noto Sans','DejaVu Sans',sans-serif;"
    "fill:var(--f-ink);stroke:none}"
    ".figure .small{font-size:11.5px}.figure .strong{font-weight:650}.figure .quiet{fill:var(--f-muted)}"
    ".figure .code{font-family:ui-monospace,'SF Mono',Consolas,'Noto Sans Mono','DejaVu Sans Mono',monospace}"
    ".figure .first{--own:var(--f-first)}.figure .second{--own:var(--f-second)}"
    ".figure .stroke{stroke:var(--own);stroke-width:2.25;fill:none}.figure .fill,.figure text.fill{fill:var(--own)}"
    ".figure .dashed{stroke-dasharray:7 4}.figure .dotted{stroke-dasharray:2 4}"
    ".figure .ground{fill:var(--f-ground)}"
    ".figure .panel{fill:var(--f-panel);stroke:var(--f-line)}.figure .box{fill:var(--f-ground);stroke:var(--f-ink)}"
    ".figure .rule{stroke:var(--f-line);stroke-width:1;fill:none}.figure .faint{opacity:.55}"
    ".figure text.halo{stroke:var(--f-ground);stroke-width:4px;paint-order:stroke}"
    ".figure text.onfill{fill:var(--f-ground)}.figure .line{stroke:var(--f-muted);stroke-width:1.5;fill:none}"
    ".figure .lock,.figure .tip{fill:var(--f-muted)}.figure .wait{fill:var(--f-wait)}.figure .dot{fill:var(--f-ink)}"
    ".figure .leader{stroke:var(--f-line);stroke-width:1}.figure .grid{stroke-dasharray:1 4}"
    ".figure .delay{stroke:var(--f-ink);stroke-width:.75}.figure .delay0{fill:var(--f-ground)}"
    ".figure .delay1{fill:var(--f-wait)}.figure .delay2{fill:var(--f-second)}.figure .delay3{fill:var(--f-first)}"
)


# Characters that XML 1.0 forbids (section 2.2), control characters, and those that change the direction of the text
# around them (Unicode Bidirectional Algorithm, 2), which would mislead a reader.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def clean(content: str) -> str:
    """Replace each character that a document must not contain, or that misleads its reader, with U+FFFD."""
    return _UNFIT.sub("\ufffd", content)


def escape(content: object) -> str:
    """Escape `content` for XML, as text or attribute."""
    return html.escape(clean(str(content)))


def element(name: str, *inside: str, **attributes: object) -> str:
    """Return an element; `inside` is SVG already. `stroke_width` becomes `stroke-width`, `class_` becomes `class`."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_number(value)}"' for key, value in attributes.items() if value != ""
    )
    return f"<{name}{words}>{''.join(inside)}</{name}>" if inside else f"<{name}{words}/>"


def text(x: float, y: float, content: object, classes: str = "", anchor: str = "") -> str:
    """Return a line of text that starts at x, y. `anchor` may let it end there, or centre it."""
    return element("text", escape(content), x=x, y=y, class_=classes, text_anchor=anchor)


def width(content: str, size: float = 13) -> float:
    """Estimate the width of `content` in a proportional font of `size` px; the estimate is rather too high than too
    low.
    """
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6 for c in content) * size


def shorten(content: str, most: int) -> str:
    """Shorten `content` to `most` characters; `…` marks the cut."""
    content = " ".join(content.split())
    return content if len(content) <= most else content[: most - 1] + "…"


def figure(kind: str, size: tuple[float, float], title: str, description: str, parts: Iterable[str]) -> str:
    """Return a complete figure of `size` px, with a title and a description for screen readers."""
    body = "".join(parts)
    # A page may have several figures, and an id is unique in it.
    name = f"{kind}-{zlib.crc32(clean(title + body).encode()):08x}"
    across, down = (_number(side) for side in size)
    return element(
        "svg",
        element("title", escape(title), id=f"{name}-title"),
        element("desc", escape(description), id=f"{name}-desc"),
        f"<style>{STYLE}</style>",
        element("rect", width=across, height=down, class_="ground"),
        body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {across} {down}",
        width=across,
        height=down,
        role="img",
        aria_labelledby=f"{name}-title",
        aria_describedby=f"{name}-desc",
        class_=f"figure {kind}",
    )


def _number(value: object) -> str:
    """Format a number with at most two decimals; escape everything else."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else escape(value)


def milliseconds(value: float) -> str:
    """Format a duration for people; below ten milliseconds with one decimal."""
    return f"{value:.1f}".removesuffix(".0") + " ms" if 0 <= value < 9.95 else spoken(value / 1000)


def delays(seconds: Iterable[float]) -> str:
    """Format Postfix's four delays as Postfix does."""
    return " / ".join(f"{each:g}" for each in seconds) + " s"
