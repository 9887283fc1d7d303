"""The stored state of labs: a private directory for each lab, on tmpfs, below a home for each engine.

<home>/<lab>/lab.json       how the lab was brought up
<home>/<lab>/subnets.yaml   its networks' subnets, a compose file
<home>/<lab>/files/         the files for its containers: secrets and tables
<home>/<lab>/changes/       changes in progress; see `lab/changes`
<home>/<lab>.lock           locked by the command that works on the lab, and by its child processes
<home>/<lab>.users          see `lab/leases`

`storage/directories` creates and marks the directories.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import re
import shutil
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

# How long a command waits for other commands on the same lab, in seconds.
LOCK_SECONDS = 60.0

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,29}")
# Needs no quoting in the value of a label, nor in a filter for it.
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")


def is_name(name: str) -> bool:
    """Return whether this is a valid lab name."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return a valid lab name: it becomes part of container and network names. Raises InputError."""
    if not is_name(name):
        raise InputError(
            f"invalid lab name: {name!r}", remedy="use up to 30 lower-case letters, digits and dashes, like my-lab"
        )
    return name


def owner() -> str:
    """Return the owner of this user's labs: `MAILSTACK_OWNER`, else user@machine. `down --all` removes only these.

    Raises InputError.
    """
    if chosen := os.environ.get("MAILSTACK_OWNER"):
        if not _OWNER.fullmatch(chosen):
            raise InputError(
                f"invalid MAILSTACK_OWNER: {chosen!r}",
                remedy="use letters, digits and . _ @ + -, up to 100, like user@my-machine",
            )
        return chosen
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class State:
    """The state of a lab, as `up` saves it."""

    lab: str
    owner: str
    expires: str  # seconds of the epoch, or "never"
    tag: str  # of the images
    files: tuple[str, ...]  # compose files, in order
    ports: Mapping[str, int]  # endpoint -> port on 127.0.0.1
    subnets: Mapping[str, str] = field(default_factory=dict)  # network -> subnet, where the definition sets none
    document: Json = field(default_factory=dict)  # the resolved `x-mailstack` block
    relay: str = ""  # host:port of an outside relay
    engine: str = ""  # the engine's address
    services: tuple[Service, ...] = ()
    stays: bool = True  # whether it remains after `up`: it is proven, or brought up with --keep

    def definition(self) -> Lab:
        """Return the Lab that the document and the services describe. Raises Misfit."""
        from mailstack.definition import schema

        return replace(schema.parse({schema.BLOCK: self.document}), services=self.services)


def read(path: Path) -> State | None:
    """Return the State in a file of this user; None for any other content."""
    data = json_file.read(path)
    try:
        services = tuple(map(Service.of, data.get("services", ())))
        state = State(**{**data, "files": tuple(data["files"]), "services": services})
    except (TypeError, KeyError, ValueError):
        return None
    texts = (state.lab, state.owner, state.expires, state.tag, state.relay, state.engine, *state.files)
    fits = all(isinstance(word, str) for word in texts) and isinstance(state.stays, bool)
    fits = fits and all(isinstance(each, dict) for each in (state.ports, state.subnets, state.document))
    return state if fits and all(isinstance(port, int) for port in state.ports.values()) else None


@dataclass(frozen=True, slots=True)
class Home:
    """The directory of this user's labs on one engine.

    An engine is identified by its endpoint and its ID together, because cloned machines share IDs.
    """

    root: Path  # see `directories.root`
    endpoint: str
    engine: str  # the engine's ID

    @property
    def path(self) -> Path:
        """The path of the home."""
        return self.root / f"engine-{hashlib.sha256(f'{self.endpoint} {self.engine}'.encode()).hexdigest()[:12]}"

    def make(self) -> None:
        """Create the directory, unless it exists. Raises HostError."""
        directories.make(self.root, Marker(directories.ROOT))
        directories.make(self.path, Marker(directories.ENGINE, endpoint=self.endpoint, engine=self.engine))

    def labs(self) -> list[str]:
        """Return the names of the labs with a directory in this home."""
        return [name for name, marker in directories.entries(self.path, directories.LAB).items() if marker.lab == name]

    def files(self, suffix: str) -> list[str]:
        """Return the names of the labs with an empty file of this suffix in this home: `.lock`, `.users`."""
        paths = [Path(name) for name in directories.names(self.path)]
        named = [path.stem for path in paths if path.suffix == suffix and is_name(path.stem)]
        return [name for name in named if _is_empty_file(self.path / f"{name}{suffix}")]

    def open(self, name: str, *, make: bool = True) -> int:
        """Open a lock file of the home, and return its descriptor.

        Raises FileNotFoundError when it does not exist and `make` is False; HostError.
        """
        path = self.path / name
        try:
            while True:
                if not make:
                    return _open_empty(path, os.O_RDWR)
                self.make()
                with contextlib.suppress(FileNotFoundError), directories.locked(self.root):
                    return _open_empty(path, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise HostError(f"{path}: cannot be opened: {error.strerror}", remedy="remove it") from None

    def discard(self, name: str) -> None:
        """Remove a lock file of the home, if it is empty; and the home, if nothing else is in it."""
        if _is_empty_file(self.path / name):
            (self.path / name).unlink(missing_ok=True)
        self.tidy()

    def tidy(self) -> None:
        """Remove the home, if no lab is left in it; and then the root, except in shared memory, where it is reused."""
        with contextlib.suppress(OSError), directories.locked(self.root):
            directories.remove_if_unused(self.path)
            if self.root.parent != directories.SHARED_MEMORY:
                directories.remove_if_unused(self.root, [COMPOSE])


_UNIX = "unix://"
# File in the root with facts about Compose; see `compose.version_of`.
COMPOSE = "compose.json"


def endpoint_of(url: str) -> str:
    """Return an engine's address with symbolic links resolved: /var/run becomes /run."""
    return _UNIX + str(Path(url.removeprefix(_UNIX)).resolve()) if url.startswith(_UNIX) else url


def homes(root: Path) -> list[Home]:
    """Return the homes below a root, one for each engine with labs of this user."""
    markers = directories.entries(root, directories.ENGINE).values()
    return [Home(root, marker.endpoint, marker.engine) for marker in markers]


class LabDirectory:
    """The directory of a lab, and its lock."""

    def __init__(self, home: Home, name: str) -> None:
        self.home = home
        self.name = check_name(name)
        self.path = home.path / name
        self.files = self.path / "files"
        self.subnets_file = self.path / "subnets.yaml"
        self._lock_name = f"{name}.lock"

    @property
    def ca_file(self) -> Path:
        """The file with the lab's CA certificate."""
        return self.files / "ca.pem"

    def make(self) -> None:
        """Create the directory, private to this user. Raises HostError."""
        self.home.make()
        directories.make(self.path, Marker(directories.LAB, owner(), self.home.endpoint, self.home.engine, self.name))
        directories.make_subdirectory(self.files)
        directories.make_subdirectory(self.files / "added")

    def is_made(self) -> bool:
        """Return whether mailstack has created the directory."""
        marker = directories.read(self.path)
        return marker is not None and marker.lab == self.name

    def load(self) -> State | None:
        """Return the saved state; None when there is none, or one of an incompatible version."""
        return read(self.path / "lab.json")

    def save(self, state: State) -> None:
        """Save the state, and the subnets as an overlay. Raises HostError."""
        # Replace the file in one step: a process that is killed leaves the old state or the new one.
        temporary, path = self.path / ".lab.json", self.path / "lab.json"
        write_private(temporary, json.dumps(asdict(state)))
        try:
            temporary.replace(path)
        except OSError as error:
            raise HostError(f"{path}: cannot be written: {error.strerror}") from None
        write_private(self.subnets_file, json.dumps(subnets.overlay(state.subnets)))

    def remove_secrets(self) -> None:
        """Remove the files for the containers, and keep the record of the lab."""
        if self.is_made():
            shutil.rmtree(self.files, ignore_errors=True)

    def remove(self) -> None:
        """Remove the directory with all secrets in it, and the lock file, whose lock the caller holds."""
        if self.is_made():
            directories.remove(self.path)
        self.home.discard(self._lock_name)

    @contextmanager
    def locked(
        self, deadline: Deadline, on_wait: Callable[[], None] = lambda: None, *, make: bool = True
    ) -> Iterator[int]:
        """Hold the lab's lock; yield its file descriptor, for child processes to inherit.

        The Compose of a killed command goes on: the lock is released when that has ended, too. The lock file exists as
        long as the lab. When there is none, it is created; with `make` False, raises FileNotFoundError. Raises
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
                # `remove` deleted the file while this command waited for its lock: open the new file.
            finally:
                os.close(fd)


def _open_empty(path: Path, flags: int) -> int:
    fd = directories.open_file(path, flags)
    if os.fstat(fd).st_size:
        os.close(fd)
        raise refusals.not_ours(path)
    return fd


def _is_empty_file(path: Path) -> bool:
    with contextlib.suppress(OSError):
        status = path.lstat()
        return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and status.st_size == 0
    return False


def others(home: Home, name: str) -> list[State]:
    """Return the states of all labs in a home except `name`, also of those that are coming up."""
    states = (LabDirectory(home, each).load() for each in home.labs() if each != name)
    return [each for each in states if each]


def reserved_ports(home: Home, name: str) -> set[int]:
    """Return the ports of 127.0.0.1 that this user's other labs have, on any engine."""
    all_homes = {each.path: each for each in [home, *homes(home.root)]}.values()
    labs = [lab for each in all_homes for lab in others(each, name if each == home else "")]
    return {port for lab in labs for port in lab.ports.values()}
