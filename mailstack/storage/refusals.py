"""Checks and errors for directories that are unsafe, or not mailstack's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mailstack.errors import HostError

REMEDY = "set MAILSTACK_RUNTIME_DIR to a directory of your own"


def refuse_unsafe(directory: Path) -> None:
    """Raise HostError for a directory in which another user could replace mailstack's files."""
    own = (0, os.getuid())
    for place in (*reversed(directory.parents), directory):
        try:
            status = place.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise cannot_be_created(directory, error) from None
        if stat.S_ISLNK(status.st_mode) and (place == directory or status.st_uid not in own):
            raise HostError(f"{place}: is a symbolic link", remedy="give the directory that it points to")
    if not stat.S_ISDIR(status.st_mode):
        raise HostError(f"{directory}: is not a directory", remedy=REMEDY)
    if status.st_uid not in own:
        raise HostError(f"{directory}: belongs to another user", remedy=REMEDY)
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise HostError(
            f"{directory}: other users can rename and remove files in it (mode {stat.S_IMODE(status.st_mode):04o})",
            remedy=f"chmod o-w {directory}, or {REMEDY}",
        )


def cannot_be_created(path: Path, error: OSError) -> HostError:
    """Return the error for a directory that the system refuses to create or to open."""
    if path.is_symlink():
        return HostError(f"{path}: is a symbolic link", remedy=f"remove it, or {REMEDY}")
    problem = "cannot be used" if os.path.lexists(path) else "cannot be created"
    return HostError(f"{path}: {problem}: {error.strerror}", remedy=REMEDY)


def not_ours(path: Path) -> HostError:
    """Return the error for a file or directory of somebody else at a path that mailstack needs."""
    return HostError(f"{path}: exists, and was not created by mailstack", remedy=f"move it away, or {REMEDY}")
