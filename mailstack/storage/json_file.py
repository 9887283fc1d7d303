"""JSON in files that somebody else may have damaged, or put there: an object, or nothing."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

# Far more than a lab with ten thousand accounts has in any of its files.
_MOST_BYTES = 2**26


def read(path: Path | str, *, own: bool = True, directory: int | None = None) -> dict[str, Any]:
    """Return the object in a file; an empty one where there is none, or anything else. Never waits, as for a pipe.

    `own`: only a file of this user that is no link. With `directory`, the descriptor of an open one, `path` is relative
    to it.
    """
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if own else 0)
        with open(os.open(path, flags, dir_fd=directory), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                return {}
            if own and status.st_uid != os.getuid():
                return {}
            document = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
