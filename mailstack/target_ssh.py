"""A host over SSH as a target.

A process of its own (`tunnel`) keeps the connection: the engine there has a socket here, the ports of its labs are
this machine's, and what is kept of them here has a home of its own. What is left is done here: the files for the
containers have to be on the host as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mailstack import handover, hint, hosting, hosts, storage, target
from mailstack.connection import Connection
from mailstack.errors import EngineError, HostError, InputError, Interrupted, MailstackError
from mailstack.hosts import CONTROL, ENGINE
from mailstack.state import owner
from mailstack.target import DEFAULT_URL, VARIABLE, Ask

# The longest path of a socket (unix(7), sun_path).
_SOCKET_BYTES = 107


@dataclass(frozen=True, slots=True)
class SshTarget:
    """A host over SSH, and the connection to it."""

    connection: Connection
    url: str
    own_url: str
    shares_kernel = False

    @property
    def host(self) -> str:
        """See Target."""
        return str(self.connection.host)

    @property
    def where(self) -> str:
        """See Target."""
        return f"on {self.host}"

    @property
    def user(self) -> str:
        """See Target."""
        return str(self.connection.about["user"])

    @property
    def by_sudo(self) -> bool:
        """See Target."""
        return bool(self.connection.about["way"] == "sudo")

    @property
    def description(self) -> str:
        """See Target."""
        way = ", by sudo" if self.by_sudo else ""
        return f"{self.connection.about['socket']} on {self.host}, as {self.user}{way}"

    @property
    def secrets_place(self) -> str:
        """See Target."""
        return self.connection.place

    @property
    def environment(self) -> Mapping[str, str]:
        """See Target."""
        return {"DOCKER_HOST": self.url, VARIABLE: self.host}

    @property
    def runner(self) -> Connection:
        """See Target."""
        return self.connection

    @property
    def clock_ahead(self) -> float:
        """See Target; as of the last look."""
        return self.connection.ahead

    def line(self, *words: str, lab: str = "") -> str:
        """See Target."""
        return hint.line(*words, lab=lab, host=self.host)

    def look(self) -> None:
        """See Target."""
        self.connection.look()

    def explained(self, error: MailstackError) -> MailstackError:
        """See Target."""
        if isinstance(error, InputError | Interrupted):
            return error
        try:
            self.look()
        except MailstackError as gone:
            if gone.message != error.message:
                gone.details = error.happened()
            return gone
        return error

    def unanswered(self, reason: str) -> HostError:
        """See Target."""
        if "Permission denied" in reason or self.connection.look()["way"] == "denied":
            return target.denied(self)
        return EngineError(f"no Docker engine answers {self.where}", remedy=self.line("provision"))

    def files_of(self, files: Path) -> str:
        """See Target."""
        return f"{self.connection.place}/{owner()}/{files.parent.name}/files"

    def hand_over(self, files: Path, names: Collection[str] | None = None) -> None:
        """See Target. Raises DeadlinePassed, too."""
        handover.send(self.connection, files, self.files_of(files), names)

    def forget(self, lab: str, ports: Collection[int]) -> None:
        """See Target. Raises DeadlinePassed, too."""
        handover.forget(self.connection, lab)
        self.close(ports)

    def forward(self, ports: Collection[int]) -> list[int]:
        """See Target."""
        return self.connection.forward(ports)

    def close(self, ports: Collection[int]) -> None:
        """See Target."""
        self.connection.close(ports)

    def seed(self, lab: str) -> str:
        """See Target: labs of one name on several hosts have ports of this machine, too."""
        return f"{self.host} {lab}"

    def listening(self) -> Collection[int]:
        """See Target."""
        return set(self.connection.about["ports"])

    def port_test(self) -> Callable[[int], bool]:
        """See Target."""
        busy = set(self.connection.look()["ports"])
        return lambda port: port not in busy

    def free_bytes(self, path: Path) -> int:
        """See Target."""
        return handover.free_bytes(self.connection, str(path))

    def ends_in(self, endpoint: str) -> bool:
        """See Target."""
        return endpoint.endswith(f"/{self.connection.host.key}/{ENGINE}")

    def below(self, place: Path) -> Path:
        """See Target."""
        return place / self.connection.host.key


def connect(name: str, own: str, ask: Ask) -> SshTarget:
    """Connect to the host `name`; `own` is the engine that the user has chosen besides, if any.

    Raises InputError for what is no host, HostError when it cannot be reached.
    """
    host = hosts.parse(name)
    directory = storage.root() / host.key
    if (length := len(os.fsencode(directory / CONTROL))) > _SOCKET_BYTES:
        raise HostError(
            f"{directory}: no socket fits there: its path may have {_SOCKET_BYTES} bytes, and would have {length}",
            remedy=f"set {storage.VARIABLE} to a directory with a shorter path",
        )
    url = f"unix://{directory / ENGINE}"
    # A process that was started for this host has the host's engine as its own.
    near = own.startswith("unix://") and own != url
    return SshTarget(hosting.join(host, directory, ask), url, own if near else DEFAULT_URL)
