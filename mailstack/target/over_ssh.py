"""A host over SSH as a target.

A daemon (`ssh/daemon`) keeps the connection. The host's engine has a socket here, the ports of its labs are forwarded
from this machine, and the labs' files here are in a directory of its own. This module does the rest: the containers'
files have to be on the host as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from mailstack.errors import EngineError, HostError, InputError, MailstackError
from mailstack.secret import Ask
from mailstack.ssh import address, daemon_client, handover
from mailstack.ssh.address import CONTROL, ENGINE
from mailstack.ssh.connection import Connection
from mailstack.state import owner
from mailstack.storage import directories
from mailstack.target import target
from mailstack.target.target import DEFAULT_URL, Target

# The longest path of a socket, in bytes (unix(7), sun_path).
_SOCKET_BYTES = 107


@dataclass(frozen=True, slots=True)
class SshTarget(Target):
    """A host over SSH and the connection to it. The methods are those of Target."""

    connection: Connection
    socket: str  # the address of the local socket that leads to the engine
    own_address: str

    @property
    def url(self) -> str:
        return self.socket

    @property
    def own_url(self) -> str:
        return self.own_address

    @property
    def host(self) -> str:
        return str(self.connection.host)

    @property
    def user(self) -> str:
        return str(self.connection.about["user"])

    @property
    def uses_sudo(self) -> bool:
        return bool(self.connection.about["way"] == "sudo")

    @property
    def description(self) -> str:
        way = ", by sudo" if self.uses_sudo else ""
        return f"{self.connection.about['socket']} on {self.host}, as {self.user}{way}"

    @property
    def secrets_directory(self) -> str:
        return self.connection.place

    @property
    def runner(self) -> Connection:
        return self.connection

    @property
    def clock_ahead(self) -> float:
        return self.connection.ahead

    def look(self) -> None:
        self.connection.look()

    def root_cause(self, error: MailstackError) -> MailstackError:
        if isinstance(error, InputError):
            return error
        try:
            self.look()
        except MailstackError as gone:
            if gone.message != error.message:
                gone.details = error.happened()
            return gone
        return error

    def no_answer_error(self, reason: str) -> HostError:
        if "Permission denied" in reason or self.connection.look()["way"] == "denied":
            return target.denied(self)
        return EngineError(f"no Docker engine answers {self.where}", remedy=self.line("provision"))

    def files_of(self, files: Path) -> str:
        return f"{self.connection.place}/{owner()}/{files.parent.name}/files"

    def hand_over(self, files: Path, names: Collection[str] | None = None) -> None:
        handover.send(self.connection, files, self.files_of(files), names)

    def forget(self, lab: str, ports: Collection[int]) -> None:
        handover.forget(self.connection, lab)
        self.close(ports)

    def forward(self, ports: Collection[int]) -> list[int]:
        return self.connection.forward(ports)

    def close(self, ports: Collection[int]) -> None:
        self.connection.close(ports)

    def listening(self) -> Collection[int]:
        return set(self.connection.about["ports"])

    def port_test(self) -> Callable[[int], bool]:
        busy = set(self.connection.look()["ports"])
        return lambda port: port not in busy

    def free_bytes(self, path: Path) -> int:
        return handover.free_bytes(self.connection, str(path))

    def matches_endpoint(self, endpoint: str) -> bool:
        return endpoint.endswith(f"/{self.connection.host.key}/{ENGINE}")

    def legacy_directory(self, place: Path) -> Path:
        return place / self.connection.host.key


def connect(name: str, own_address: str, ask: Ask) -> SshTarget:
    """Connect to the host `name`; `own` is the address of the engine that the user has chosen besides, if any.

    Raises InputError for an invalid host, HostError when it cannot be reached.
    """
    host = address.parse(name)
    directory = directories.root() / host.key
    if (length := len(os.fsencode(directory / CONTROL))) > _SOCKET_BYTES:
        raise HostError(
            f"{directory}: no socket fits there: its path may have {_SOCKET_BYTES} bytes, and would have {length}",
            remedy=f"set {directories.VARIABLE} to a directory with a shorter path",
        )
    url = f"unix://{directory / ENGINE}"
    # In a process that was started for this host, `own` is the host's engine.
    has_own_engine = own_address.startswith("unix://") and own_address != url
    return SshTarget(daemon_client.join(host, directory, ask), url, own_address if has_own_engine else DEFAULT_URL)
