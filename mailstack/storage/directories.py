"""Directories of mailstack's own: private, marked, and never reached through a symbolic link.

<base>/mailstack-labs-UID/        the root; <base> is MAILSTACK_RUNTIME_DIR, else shared memory
<root>/engine-DIGEST/             the labs on one engine, see `state`
<root>/@DIGEST/                   the connection to one host, see `ssh/daemon_client`

Each of them has a file `.mailstack` that says what it is. Only directories with that file are listed, changed or
removed, and nothing beside them: a directory that a user names may be a home, or shared with others.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mailstack.errors import HostError
from mailstack.storage import json_file, refusals

VARIABLE = "MAILSTACK_RUNTIME_DIR"
MARKER = ".mailstack"
FORMAT = 1

# Kinds of directories.
ROOT, ENGINE, HOST, LAB, SECRETS, REPORT = "root", "engine", "host", "lab", "secrets", "report"

SHARED_MEMORY = Path("/dev/shm")
_NEW = ".new-"  # a directory that has no name yet
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Marker:
    """What a directory is, as its file `.mailstack` says (JSON)."""

    kind: str
    owner: str = ""  # whose labs: see `state.owner`
    endpoint: str = ""  # of the engine
    engine: str = ""  # the engine's ID
    lab: str = ""
    format: int = FORMAT


def base() -> Path:
    """Return the directory below which everything is kept; it need not exist. Raises HostError for one that is unsafe.

    Not XDG_RUNTIME_DIR where there is shared memory: cron, su and sudo do not set it, and would miss labs that are up.
    """
    try:
        if chosen := os.environ.get(VARIABLE):
            directory = Path(chosen).absolute()
        elif os.access(SHARED_MEMORY, os.W_OK):
            directory = SHARED_MEMORY
        elif (own := os.environ.get("XDG_RUNTIME_DIR")) and os.access(own, os.W_OK):
            directory = Path(own).absolute()
        else:
            raise HostError(
                "there is no place on tmpfs for the lab's secrets: neither /dev/shm nor XDG_RUNTIME_DIR can be written",
                remedy="set MAILSTACK_RUNTIME_DIR to a directory that only you can read",
            )
    except OSError as error:  # the working directory is gone
        raise HostError(f"{chosen}: cannot be found: {error.strerror}", remedy="name it from the root: /…") from None
    refuse_colon(directory)
    refusals.refuse_unsafe(directory)
    return directory


def refuse_colon(directory: Path) -> None:
    """Raise HostError for a directory that the engine cannot mount: it takes what follows a colon for an option."""
    if ":" in str(directory):
        raise HostError(
            f"{directory}: has a colon in its name, where the engine can mount nothing", remedy=refusals.ANOTHER
        )


def root() -> Path:
    """Return this user's root below `base`; it need not exist. Raises HostError."""
    return base() / f"mailstack-labs-{os.getuid()}"


def make(path: Path, marker: Marker) -> None:
    """Make `path`, a private (0700) directory with this marker, unless it is there already.

    An empty directory of this user is taken. Safe to call from several processes at once. Raises HostError for a
    directory that was not made by mailstack for this.
    """
    found = read(path)
    if found is None:
        _make_new(path, marker)
        found = read(path)
    if found is None or (found.kind, found.lab) != (marker.kind, marker.lab):
        raise refusals.in_the_way(path)
    _close_to_others(path)


def read(path: Path) -> Marker | None:
    """Return the marker of a directory that this user's mailstack made; None for anything else. Follows no link."""
    try:
        with _opened(path) as directory:
            marker = Marker(**json_file.read(MARKER, directory=directory))
    except (OSError, TypeError):
        return None
    words = (marker.kind, marker.owner, marker.endpoint, marker.engine, marker.lab)
    return marker if marker.format == FORMAT and all(isinstance(word, str) for word in words) else None


def entries(path: Path, kind: str) -> dict[str, Marker]:
    """Return the marked directories of a kind in `path`, by name."""
    found = {name: read(path / name) for name in names(path)}
    return {name: marker for name, marker in found.items() if marker and marker.kind == kind}


def names(path: Path) -> list[str]:
    """Return what is in a directory of this user, its marker aside; nothing where there is none."""
    try:
        with _opened(path) as directory:
            return sorted(_listed(directory) - {MARKER})
    except OSError:
        return []


def remove(path: Path) -> None:
    """Remove a marked directory and everything in it; leave anything else alone. Follows no link.

    The marker goes last: a removal that is interrupted can be repeated.
    """
    marker = read(path)
    if marker is None:
        return
    with contextlib.suppress(OSError), _opened(path) as directory:
        for name in _listed(directory) - {MARKER}:
            _remove_entry(name, directory)
        os.unlink(MARKER, dir_fd=directory)
    try:
        path.rmdir()
    except OSError:  # there is something in it still, or again
        with contextlib.suppress(OSError, FileExistsError):
            _mark(path, marker)


def remove_if_unused(path: Path, besides: Collection[str] = ()) -> None:
    """Remove a marked directory that has nothing in it, `besides` and its marker aside. The caller holds its parent."""
    if not set(names(path)) - set(besides):
        remove(path)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a marked directory (flock(2)), so that no other process adds or removes directories in it meanwhile.

    Raises FileNotFoundError when it is gone.
    """
    while True:
        with _opened(path) as directory:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if _is_at(directory, path):
                yield
                return


def open_file(path: Path, flags: int) -> int:
    """Open a file in a directory of mailstack's own, 0600 where it is made, and return its descriptor. Follows no link.

    Raises OSError; HostError for anything but a regular file of this user that has no second name.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_nlink > 1:
        os.close(fd)
        raise refusals.in_the_way(path)
    return fd


def make_subdirectory(path: Path) -> None:
    """Make a private directory (0700) inside a marked one, unless it is there. Raises HostError."""
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    except OSError as error:
        raise refusals.cannot_be_made(path, error) from None
    _close_to_others(path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a directory of this user that is no link. Raises OSError."""
    directory = os.open(path, _DIRECTORY)
    try:
        if os.fstat(directory).st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "belongs to another user", str(path))
        yield directory
    finally:
        os.close(directory)


def is_own_directory(path: Path) -> bool:
    """Return whether this is a directory of this user, and no link to one."""
    with contextlib.suppress(OSError), _opened(path):
        return True
    return False


def _listed(directory: int) -> set[str]:
    with os.scandir(directory) as found:
        return {entry.name for entry in found}


def _is_at(directory: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(directory), path.lstat())
    except FileNotFoundError:
        return False


def _make_new(path: Path, marker: Marker) -> None:
    """Give `path` this marker, as a new directory or as an empty one of this user that is there. Raises HostError."""
    try:
        _make_parents(path)
        if os.path.lexists(path):
            with _opened(path) as directory:
                if _listed(directory):
                    return
                # Shared with others: not to be closed to them.
                if (mode := os.fstat(directory).st_mode) & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISVTX):
                    raise HostError(
                        f"{path}: is shared with others (mode {stat.S_IMODE(mode):04o})", remedy=refusals.ANOTHER
                    )
            _mark(path, marker)
            return
        new = path.parent / f"{_NEW}{secrets.token_hex(8)}"
        try:
            new.mkdir(mode=0o700)
            new.chmod(0o700)  # whatever the umask
            _mark(new, marker)
            new.rename(path)
        finally:
            with contextlib.suppress(OSError):
                (new / MARKER).unlink(missing_ok=True)
                new.rmdir()
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not os.path.lexists(path):
            raise refusals.cannot_be_made(path, error) from None


def _make_parents(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None


def _mark(path: Path, marker: Marker) -> None:
    with open(os.open(path / MARKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(json.dumps(asdict(marker)).encode())


def _close_to_others(path: Path) -> None:
    """Have a directory of mailstack's own be this user's alone. Raises HostError."""
    try:
        with _opened(path) as directory:
            if os.fstat(directory).st_mode & 0o077:
                os.fchmod(directory, 0o700)
    except OSError as error:
        raise refusals.cannot_be_made(path, error) from None


def _remove_entry(name: str, directory: int) -> None:
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
