"""Read JSON objects from files that may be damaged or written by others."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

# Size limit of a file: far more than the largest file of a lab with ten thousand accounts.
_MOST_BYTES = 2**26


def read(path: Path | str, *, own: bool = True, directory: int | None = None) -> dict[str, Any]:
    """Return the object in a file; an empty one for no file or any other content. Does not block on a FIFO.

    `own`: accept only a file of this user, and no symbolic link. `path` is relative to `directory`, an open file
    descriptor, when that is given.
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
