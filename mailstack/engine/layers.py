"""How large the layers of an image are, by its history."""

from __future__ import annotations

import re
from typing import Any

# How the history names an instruction that may make a layer, with either builder.
_CHANGES_FILES = re.compile(r"(/bin/sh -c )?(#\(nop\) +)?(ADD|COPY|WORKDIR|RUN) |/bin/sh -c (?!#\(nop\))")


def sizes(history: list[dict[str, Any]], count: int) -> list[int]:
    """The sizes of an image's `count` layers, lowest first, from its history in the same order.

    The history has entries without a layer, and does not say which: those that only describe (ENV, CMD, …), and, with
    the classic builder, a RUN that changed nothing. A layer of size 0 may be a directory that was made.
    """
    empty = [n for n, entry in enumerate(history) if entry["Size"] == 0]
    # Which of the empty entries have no layer: those that describe, and then the lowest, whatever they are.
    empty.sort(key=lambda n: bool(_CHANGES_FILES.match(history[n].get("CreatedBy") or "")))
    without = set(empty[: max(0, len(history) - count)])
    found = [entry["Size"] for n, entry in enumerate(history) if n not in without]
    return [0] * (count - len(found)) + found[-count:]
