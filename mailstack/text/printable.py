"""Make text safe for a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Return `text` safe for a terminal: control, format, surrogate and private-use characters become `?`.

    Line ends and tabs become spaces; call it line by line for text of several lines.
    """
    if text.isprintable():
        return text
    return "".join(
        " " if c in "\t\r\n" else "?" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co") else c for c in text
    )
