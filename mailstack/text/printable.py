"""Text that cannot drive a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """`text` without what could drive a terminal: control, format and surrogate characters are shown as `?`.

    Line ends and tabs become spaces; use it line by line for text of several lines.
    """
    if text.isprintable():
        return text
    return "".join(
        " " if c in "\t\r\n" else "?" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co") else c for c in text
    )
