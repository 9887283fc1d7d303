"""The sizes of an image's layers, computed from its history."""

from __future__ import annotations

import re
from typing import Any

# How either builder names an instruction in the history that may create a layer.
_CHANGES_FILES = re.compile(r"(/bin/sh -c )?(#\(nop\) +)?(ADD|COPY|WORKDIR|RUN) |/bin/sh -c (?!#\(nop\))")


def sizes(history: list[dict[str, Any]], count: int) -> list[int]:
    """Return the sizes of an image's `count` layers, lowest first, from its history in the same order.

    The history has entries without a layer, and does not mark them: metadata (ENV, CMD, …), and, with the classic
    builder, a RUN that changed nothing. A layer of size 0 may hold a new directory.
    """
    empty = [n for n, entry in enumerate(history) if entry["Size"] == 0]
    # Choose the empty entries that have no layer: metadata first, then the lowest of the others.
    empty.sort(key=lambda n: bool(_CHANGES_FILES.match(history[n].get("CreatedBy") or "")))
    without = set(empty[: max(0, len(history) - count)])
    found = [entry["Size"] for n, entry in enumerate(history) if n not in without]
    return [0] * (count - len(found)) + found[-count:]
