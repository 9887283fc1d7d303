"""The evidence of a step, in the format of the experiment's document."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

from mailstack.model import Json


class Evidence:
    """The evidence of a step, in the order in which it was added."""

    def __init__(self) -> None:
        self._items: list[Json] = []

    def all(self) -> tuple[Json, ...]:
        """Return the evidence so far."""
        return tuple(self._items)

    def text(self, title: str, text: str) -> None:
        """Add the output of a server or a program."""
        self._items.append({"kind": "text", "title": title, "text": text.rstrip("\n")})

    def table(self, title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table."""
        cells = [[str(cell) for cell in row] for row in rows]
        self._items.append({"kind": "table", "title": title, "headings": list(headings), "rows": cells})

    def image(self, title: str, name: str, type: str, data: bytes) -> None:
        """Add an image that was sent by mail."""
        encoded = base64.b64encode(data).decode()
        self._items.append({"kind": "image", "title": title, "name": name, "type": type, "base64": encoded})

    def journey(self, title: str, journey: Json) -> None:
        """Add the journey of a mail (`Journey.json`)."""
        self._items.append({"kind": "journey", "title": title, "journey": journey})

    def dialogue(self, title: str, dialogue: Json) -> None:
        """Add a dialogue of client and server (`Dialogue.json`)."""
        self._items.append({"kind": "dialogue", "title": title, "dialogue": dialogue})
