"""The report as one PDF file. It is written completely or not at all, and replaces no other file than a report."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from mailstack.errors import HostError, InputError

SUFFIX = ".pdf"
# The last line of a report's file, a comment (ISO 32000-1, 7.2.4): by this it is known.
_MARKER = b"%report of mailstack experiment\n"


def is_pdf(path: Path) -> bool:
    """Whether the name of an output means a PDF file and not a folder."""
    return path.suffix.lower() == SUFFIX


def require_usable(path: Path) -> None:
    """Raise InputError for a path that must not become a report, before the work whose result it is for."""
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no such directory to make it in")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{path}: cannot be written to: its directory belongs to somebody else")
    if not (path.exists() or path.is_symlink()):
        return
    try:
        is_report = path.is_file() and not path.is_symlink() and path.read_bytes().endswith(_MARKER)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if not is_report:
        raise InputError(f"{path}: is something else than a report of mailstack", remedy="name a new file")


def write(path: Path, data: bytes) -> None:
    """Write the file, or replace an earlier report by it. Raises HostError."""
    temporary = ""
    try:
        number, temporary = tempfile.mkstemp(prefix=".writing-", suffix=SUFFIX, dir=path.absolute().parent)
        with open(number, "wb") as file:
            file.write(data.rstrip(b"\n") + b"\n" + _MARKER)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        Path(temporary).replace(path)
        temporary = ""
    except OSError as error:
        raise HostError(f"{path}: the report could not be written: {error.strerror}") from None
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
