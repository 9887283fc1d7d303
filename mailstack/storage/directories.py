"""mailstack's own directories: private, marked, and never reached through a symbolic link.

<base>/mailstack-labs-UID/        the root; <base> is MAILSTACK_RUNTIME_DIR, else shared memory
<root>/engine-DIGEST/             the labs on one engine, see `state`
<root>/@DIGEST/                   the connection to one host, see `ssh/daemon_client`

Each of them contains a file `.mailstack`, its marker. Only directories with a marker are listed, changed or removed,
and nothing beside them: a directory that the user chose may be a home directory, or shared with others.
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
from mailstack.storage import json_file, locks, refusals

VARIABLE = "MAILSTACK_RUNTIME_DIR"
MARKER = ".mailstack"
FORMAT = 1

# Kinds of directories, in the marker.
ROOT, ENGINE, HOST, LAB, SECRETS, REPORT = "root", "engine", "host", "lab", "secrets", "report"

SHARED_MEMORY = Path("/dev/shm")
_TRIES = 5  # of making a directory that other processes remove at the same moment
_NEW = ".new-"  # prefix of a directory before it is renamed to its final name
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Marker:
    """The marker of a directory: the JSON in its file `.mailstack`."""

    kind: str
    owner: str = ""  # of the labs in it; see `state.owner`
    endpoint: str = ""  # of the engine
    engine: str = ""  # the engine's ID
    lab: str = ""
    format: int = FORMAT


def base() -> Path:
    """Return the base directory, which need not exist. Raises HostError when it is unsafe.

    Shared memory is preferred to XDG_RUNTIME_DIR: cron, su and sudo do not set that, and would not find running labs.
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
                "no tmpfs for the lab's secrets: neither /dev/shm nor XDG_RUNTIME_DIR is writable",
                remedy="set MAILSTACK_RUNTIME_DIR to a directory that only you can read",
            )
    except OSError as error:  # the working directory is gone
        raise HostError(f"{chosen}: cannot be found: {error.strerror}", remedy="give an absolute path") from None
    refuse_colon(directory)
    refusals.refuse_unsafe(directory)
    return directory


def refuse_colon(directory: Path) -> None:
    """Raise HostError for a colon in the path: the engine would take the rest for a mount option."""
    if ":" in str(directory):
        raise HostError(f"{directory}: has a colon in its path, which the engine cannot mount", remedy=refusals.REMEDY)


def root() -> Path:
    """Return this user's root below `base`; it need not exist. Raises HostError."""
    return base() / f"mailstack-labs-{os.getuid()}"


def make(path: Path, marker: Marker) -> None:
    """Create `path`, a private (0700) directory with this marker, unless it exists already.

    An existing empty directory of this user is used. Safe to call from several processes at once, also while another
    one removes it. Raises HostError for a directory that mailstack did not create for this lab and kind.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            present = read(path)
            if present is None:
                _make_new(path, marker)
                present = read(path)
            if present is None and tries_left and not os.path.lexists(path):
                continue  # another process has just removed it
            if present is None or (present.kind, present.lab) != (marker.kind, marker.lab):
                raise refusals.not_ours(path)
            _close_to_others(path)
            return
        except HostError as error:
            if not tries_left or not isinstance(error.__cause__, FileNotFoundError):
                raise


def read(path: Path) -> Marker | None:
    """Return the marker of a directory that mailstack made for this user; None for anything else. Follows no link."""
    try:
        with _open_directory(path) as directory:
            marker = Marker(**json_file.read(MARKER, directory=directory))
    except (OSError, TypeError):
        return None
    words = (marker.kind, marker.owner, marker.endpoint, marker.engine, marker.lab)
    return marker if marker.format == FORMAT and all(isinstance(word, str) for word in words) else None


def entries(path: Path, kind: str) -> dict[str, Marker]:
    """Return the marked directories of a kind in `path`, by name."""
    markers = {name: read(path / name) for name in names(path)}
    return {name: marker for name, marker in markers.items() if marker and marker.kind == kind}


def names(path: Path) -> list[str]:
    """Return the names in a directory of this user, without its marker; none when there is no such directory."""
    try:
        with _open_directory(path) as directory:
            return sorted(_names_in(directory) - {MARKER})
    except OSError:
        return []


def remove(path: Path) -> None:
    """Remove a marked directory and everything in it; ignore any other. Does not follow symbolic links.

    The marker is removed last, so that an interrupted removal can be repeated.
    """
    marker = read(path)
    if marker is None:
        return
    with contextlib.suppress(OSError), _open_directory(path) as directory:
        for name in _names_in(directory) - {MARKER}:
            _remove_entry(name, directory)
        os.unlink(MARKER, dir_fd=directory)
    try:
        path.rmdir()
    except OSError:  # it is not empty, or not empty any more: mark it again
        with contextlib.suppress(OSError, FileExistsError):
            _mark(path, marker)


def remove_if_unused(path: Path, besides: Collection[str] = ()) -> None:
    """Remove a marked directory that contains at most `besides` and its marker. The caller holds its parent."""
    if not set(names(path)) - set(besides):
        remove(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a marked directory (flock(2)): no other process adds or removes directories in it meanwhile.

    Raises FileNotFoundError when it does not exist.
    """
    while True:
        with _open_directory(path) as directory:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if locks.same_file(directory, path):
                yield
                return


def open_file(path: Path, flags: int) -> int:
    """Open a file in one of mailstack's directories and return its descriptor; a new file has mode 0600.

    Does not follow a symbolic link. Raises OSError; HostError for anything but a regular file of this user with one
    link.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_nlink > 1:
        os.close(fd)
        raise refusals.not_ours(path)
    return fd


def make_subdirectory(path: Path) -> None:
    """Create a private directory (0700) inside a marked one, unless it exists. Raises HostError."""
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    except OSError as error:
        raise refusals.cannot_be_created(path, error) from error
    _close_to_others(path)


@contextlib.contextmanager
def _open_directory(path: Path) -> Iterator[int]:
    """Open a directory of this user, not a symbolic link. Raises OSError."""
    directory = os.open(path, _DIRECTORY)
    try:
        if os.fstat(directory).st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "belongs to another user", str(path))
        yield directory
    finally:
        os.close(directory)


def is_own_directory(path: Path) -> bool:
    """Return whether `path` is a directory of this user, and not a symbolic link."""
    with contextlib.suppress(OSError), _open_directory(path):
        return True
    return False


def _names_in(directory: int) -> set[str]:
    with os.scandir(directory) as entries:
        return {entry.name for entry in entries}


def _make_new(path: Path, marker: Marker) -> None:
    """Create `path` with this marker, or mark an existing empty directory of this user. Raises HostError."""
    try:
        _make_parents(path)
        if os.path.lexists(path):
            with _open_directory(path) as directory:
                if _names_in(directory):
                    return
                # Do not close a directory that is shared with others.
                if (mode := os.fstat(directory).st_mode) & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISVTX):
                    raise HostError(
                        f"{path}: is shared with other users (mode {stat.S_IMODE(mode):04o})", remedy=refusals.REMEDY
                    )
            _mark(path, marker)
            return
        new = path.parent / f"{_NEW}{secrets.token_hex(8)}"
        try:
            new.mkdir(mode=0o700)
            new.chmod(0o700)  # independent of the umask
            _mark(new, marker)
            new.rename(path)
        finally:
            with contextlib.suppress(OSError):
                (new / MARKER).unlink(missing_ok=True)
                new.rmdir()
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not os.path.lexists(path):
            raise refusals.cannot_be_created(path, error) from error


def _make_parents(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None


def _mark(path: Path, marker: Marker) -> None:
    with open(os.open(path / MARKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(json.dumps(asdict(marker)).encode())


def _close_to_others(path: Path) -> None:
    """Make one of mailstack's directories private to this user (0700). Raises HostError."""
    try:
        with _open_directory(path) as directory:
            if os.fstat(directory).st_mode & 0o077:
                os.fchmod(directory, 0o700)
    except OSError as error:
        raise refusals.cannot_be_created(path, error) from error


def _remove_entry(name: str, directory: int) -> None:
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
