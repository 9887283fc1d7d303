"""What is kept of a lab between two commands: one private directory each, on tmpfs, below a home for each engine.

<home>/<lab>/lab.json       how the lab was brought up
<home>/<lab>/subnets.yaml   its networks' subnets, a compose file
<home>/<lab>/files/         what its containers are handed: secrets and tables
<home>/<lab>.lock           held by the command that works on the lab, and by what it has started
<home>/<lab>.users          see `lab/leases`

`storage/directories` makes the directories, and marks them.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from mailstack.errors import HostError, InputError
from mailstack.model import Deadline, Json, Lab
from mailstack.network import subnets
from mailstack.roles import Service
from mailstack.secret import write_private
from mailstack.storage import directories, json_file, locks, refusals
from mailstack.storage.directories import Marker

# How long a command waits until others have ended that work on the same lab, in seconds.
LOCK_SECONDS = 60.0

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
    services: tuple[Service, ...] = ()
    stays: bool = True  # whether it is to stay when the process that makes it ends: it was proven, or is kept

    def definition(self) -> Lab:
        """The Lab that the document and the services describe."""
        from mailstack.definition import schema

        return replace(schema.parse({schema.BLOCK: self.document}), services=self.services)


def read(path: Path) -> State | None:
    """Return the State that a file of this user has; None for anything else."""
    data = json_file.read(path)
    try:
        services = tuple(map(Service.of, data.get("services", ())))
        found = State(**{**data, "files": tuple(data["files"]), "services": services})
    except (TypeError, KeyError, ValueError):
        return None
    words = (found.lab, found.owner, found.expires, found.tag, found.relay, found.engine, *found.files)
    fits = all(isinstance(word, str) for word in words) and isinstance(found.stays, bool)
    fits = fits and all(isinstance(each, dict) for each in (found.ports, found.subnets, found.document))
    return found if fits and all(isinstance(port, int) for port in found.ports.values()) else None


@dataclass(frozen=True, slots=True)
class Home:
    """Where this user's labs on one engine are kept.

    An engine is known by its endpoint together with its ID: cloned machines share IDs.
    """

    root: Path  # see `directories.root`
    endpoint: str
    engine: str  # the engine's ID

    @property
    def path(self) -> Path:
        """The directory of the labs on this engine."""
        return self.root / f"engine-{hashlib.sha256(f'{self.endpoint} {self.engine}'.encode()).hexdigest()[:12]}"

    def make(self) -> None:
        """Make the directory, unless it is there. Raises HostError."""
        directories.make(self.root, Marker(directories.ROOT))
        directories.make(self.path, Marker(directories.ENGINE, endpoint=self.endpoint, engine=self.engine))

    def labs(self) -> list[str]:
        """Return the names of the labs that have a directory here."""
        return [name for name, marker in directories.entries(self.path, directories.LAB).items() if marker.lab == name]

    def files(self, suffix: str) -> list[str]:
        """Return the names of the labs that have a file with this suffix here: `.lock`, `.users`. These are empty."""
        found = [Path(name) for name in directories.names(self.path)]
        named = [path.stem for path in found if path.suffix == suffix and is_name(path.stem)]
        return [name for name in named if _is_empty_file(self.path / f"{name}{suffix}")]

    def open(self, name: str, *, make: bool = True) -> int:
        """Open a file of the home for locks, and return its descriptor.

        Raises FileNotFoundError where it is not there and not to be made; HostError.
        """
        path = self.path / name
        try:
            while True:
                if not make:
                    return _open_empty(path, os.O_RDWR)
                self.make()
                with contextlib.suppress(FileNotFoundError), directories.held(self.root):
                    return _open_empty(path, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise HostError(f"{path}: cannot be opened: {error.strerror}") from None

    def discard(self, name: str) -> None:
        """Remove a file of the home, which is empty; and the home with the last of what is in it."""
        if _is_empty_file(self.path / name):
            (self.path / name).unlink(missing_ok=True)
        self.tidy()

    def tidy(self) -> None:
        """Remove the home where no lab is left in it; and the root, except in shared memory, where the next will be."""
        with contextlib.suppress(OSError), directories.held(self.root):
            directories.remove_if_unused(self.path)
            if self.root.parent != directories.SHARED_MEMORY:
                directories.remove_if_unused(self.root, [COMPOSE])


_UNIX = "unix://"
# What is remembered of Compose, in the root: see `compose.version_of`.
COMPOSE = "compose.json"


def endpoint_of(url: str) -> str:
    """Return an engine's address under one name: /var/run is /run."""
    return _UNIX + str(Path(url.removeprefix(_UNIX)).resolve()) if url.startswith(_UNIX) else url


def homes(root: Path) -> list[Home]:
    """Return the homes below a root: one for each engine that has labs of this user."""
    found = directories.entries(root, directories.ENGINE).values()
    return [Home(root, marker.endpoint, marker.engine) for marker in found]


class LabDirectory:
    """A lab's directory."""

    def __init__(self, home: Home, name: str) -> None:
        self.home = home
        self.name = check_name(name)
        self.path = home.path / name
        self.files = self.path / "files"
        self.subnets_file = self.path / "subnets.yaml"
        self._lock_name = f"{name}.lock"

    @property
    def ca_file(self) -> Path:
        """The lab's CA certificate."""
        return self.files / "ca.pem"

    def make(self) -> None:
        """Make the directory, private to this user. Raises HostError."""
        self.home.make()
        directories.make(self.path, Marker(directories.LAB, owner(), self.home.endpoint, self.home.engine, self.name))
        directories.make_subdirectory(self.files)
        directories.make_subdirectory(self.files / "added")

    def is_made(self) -> bool:
        """Return whether mailstack has made the directory."""
        marker = directories.read(self.path)
        return marker is not None and marker.lab == self.name

    def load(self) -> State | None:
        """How the lab was brought up; None when it was not, or by a version that wrote something else."""
        return read(self.path / "lab.json")

    def save(self, state: State) -> None:
        """Remember how the lab was brought up."""
        write_private(self.path / "lab.json", json.dumps(asdict(state)))
        write_private(self.subnets_file, json.dumps(subnets.overlay(state.subnets)))

    def remove(self) -> None:
        """Remove the directory with all secrets in it, and the lock, which the caller holds."""
        if self.is_made():
            directories.remove(self.path)
        self.home.discard(self._lock_name)

    @contextmanager
    def locked(
        self, deadline: Deadline, on_wait: Callable[[], None] = lambda: None, *, make: bool = True
    ) -> Iterator[int]:
        """Hold the lab's lock; gives its file descriptor, for children to inherit.

        A command that was killed leaves its Compose running: the lock is free when that, too, has ended. The file
        stays as long as the lab does; where there is none, one is made, or FileNotFoundError raised. Raises
        DeadlinePassed, HostError.
        """
        while True:
            fd = self.home.open(self._lock_name, make=make)
            try:
                locks.acquire(fd, f"lab “{self.name}”", deadline, on_wait)
                if locks.same_file(fd, self.home.path / self._lock_name):
                    try:
                        yield fd
                    finally:
                        if not self.is_made():
                            self.home.discard(self._lock_name)
                    return
                # `remove` took the file away while this command waited for it: the lock is another file now.
            finally:
                os.close(fd)


def _open_empty(path: Path, flags: int) -> int:
    fd = directories.open_file(path, flags)
    if os.fstat(fd).st_size:
        os.close(fd)
        raise refusals.in_the_way(path)
    return fd


def _is_empty_file(path: Path) -> bool:
    with contextlib.suppress(OSError):
        status = path.lstat()
        return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and status.st_size == 0
    return False


def others(home: Home, name: str) -> list[State]:
    """How the labs beside `name` in a home were brought up, or are being brought up."""
    found = (LabDirectory(home, each).load() for each in home.labs() if each != name)
    return [each for each in found if each]


def promised_ports(home: Home, name: str) -> set[int]:
    """Return the ports of 127.0.0.1 that this user's other labs have, on whatever engine they are."""
    every = {each.path: each for each in [home, *homes(home.root)]}.values()
    labs = [lab for each in every for lab in others(each, name if each == home else "")]
    return {port for lab in labs for port in lab.ports.values()}
