"""What is kept of a lab between two commands: one private directory each, on tmpfs.

<runtime directory>/<lab>/lab.json   how the lab was brought up
<runtime directory>/<lab>/subnets.yaml   its networks' subnets, a compose file
<runtime directory>/<lab>/files/     what its containers are handed: secrets and tables
<runtime directory>/<lab>.lock       held by the command that works on the lab, and by what it has started
<runtime directory>/<lab>.users      see `users`
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mailstack import subnets
from mailstack.errors import DeadlinePassed, InputError
from mailstack.model import Deadline, Json, Lab
from mailstack.secret import make_private_directory, runtime_directory, write_private

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,29}")
# What can stand in a label's value and in a filter for it without being quoted.
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")


def is_name(name: str) -> bool:
    """Whether a lab may be called so."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """`name` if a lab may be called so: it becomes part of the names of containers and networks."""
    if not is_name(name):
        raise InputError(
            f"a lab cannot be called {name!r}", remedy="use up to 30 lower-case letters, digits and dashes, like my-lab"
        )
    return name


def owner() -> str:
    """Whose labs these are: `MAILSTACK_OWNER`, else user@machine. `down --all` removes this owner's labs alone.

    Raises InputError.
    """
    if chosen := os.environ.get("MAILSTACK_OWNER"):
        if not _OWNER.fullmatch(chosen):
            raise InputError(
                f"MAILSTACK_OWNER cannot be {chosen!r}",
                remedy="use letters, digits and . _ @ + -, up to 100, like somebody@my-machine",
            )
        return chosen
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class State:
    """How a lab was brought up."""

    lab: str
    owner: str
    expires: str  # seconds of the epoch, or "never"
    tag: str  # of the images
    files: tuple[str, ...]  # compose files, in order
    ports: Mapping[str, int]  # endpoint -> port on 127.0.0.1
    subnets: Mapping[str, str] = field(default_factory=dict)  # network -> subnet, for those that ask for none
    document: Json = field(default_factory=dict)  # the resolved `x-mailstack` block
    relay: str = ""  # host:port of a relay outside
    engine: str = ""  # where it is
    stays: bool = True  # whether it is to stay when the process that makes it ends: it was proven, or is kept

    def definition(self) -> Lab:
        """The Lab that the document describes."""
        from mailstack import labfile

        return labfile.parse({labfile.BLOCK: self.document})


class LabDirectory:
    """A lab's directory."""

    def __init__(self, name: str) -> None:
        self.name = check_name(name)
        self._runtime = runtime_directory()
        self.path = self._runtime / name
        self.files = self.path / "files"
        self.subnets_file = self.path / "subnets.yaml"
        self._lock_file = self._runtime / f"{name}.lock"

    @property
    def ca_file(self) -> Path:
        """The lab's CA certificate."""
        return self.files / "ca.pem"

    def make(self) -> None:
        """Make the directory, private to this user."""
        make_private_directory(self.path)
        make_private_directory(self.files)

    def load(self) -> State | None:
        """How the lab was brought up; None when it was not, or by a version that wrote something else."""
        try:
            data = json.loads((self.path / "lab.json").read_text())
            return State(**{**data, "files": tuple(data["files"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def save(self, state: State) -> None:
        """Remember how the lab was brought up."""
        write_private(self.path / "lab.json", json.dumps(asdict(state)))
        write_private(self.subnets_file, json.dumps(subnets.overlay(state.subnets)))

    def remove(self) -> None:
        """Remove the directory with all secrets in it, and the lock, which the caller holds."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock_file.unlink(missing_ok=True)

    @contextmanager
    def locked(
        self, deadline: Deadline, on_wait: Callable[[], None] = lambda: None, *, make: bool = True
    ) -> Iterator[int]:
        """Hold the lab's lock; gives its file descriptor, for children to inherit.

        A command that was killed leaves its Compose running: the lock is free when that, too, has ended. The file
        stays as long as the lab does; where there is none, one is made, or FileNotFoundError raised. Raises
        DeadlinePassed.
        """
        while True:
            fd = os.open(self._lock_file, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
            try:
                _lock(fd, self.name, deadline, on_wait)
                if same_file(fd, self._lock_file):
                    try:
                        yield fd
                    finally:
                        if not self.path.exists():
                            self._lock_file.unlink(missing_ok=True)
                    return
                # `remove` took the file away while this command waited for it: the lock is another file now.
            finally:
                os.close(fd)


def _lock(fd: int, name: str, deadline: Deadline, on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        if not deadline.passed():
            on_wait()
    held = threading.Event()

    def wait() -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            held.set()
        except OSError:
            pass  # the deadline passed, and the file was closed

    threading.Thread(target=wait, daemon=True).start()
    if not held.wait(deadline.remaining()):
        raise DeadlinePassed(
            f"another mailstack command was still working on lab “{name}” after {deadline.seconds:g} s",
            remedy="wait for it, or end it, and try again",
        )


def same_file(fd: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def locked_labs() -> list[str]:
    """The names of the labs that have a lock here: `up` was killed before it made anything, or is about to."""
    names = [path.stem for path in runtime_directory().glob("*.lock")]
    return sorted(name for name in names if is_name(name))


def others(name: str) -> list[State]:
    """How the labs beside `name` were brought up, or are being brought up."""
    found = (LabDirectory(each).load() for each in known_labs() if each != name)
    return [each for each in found if each]


def known_labs() -> list[str]:
    """The names of the labs that have a directory here."""
    return sorted(path.name for path in runtime_directory().iterdir() if path.is_dir() and is_name(path.name))
