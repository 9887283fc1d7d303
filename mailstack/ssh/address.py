"""The address of a Docker host over SSH, as the user types it. Nothing here connects."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from mailstack.errors import InputError

# A name, an address, or an alias of ~/.ssh/config, without anything that ssh(1) or a shell could interpret.
_MACHINE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]+\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,63}")
# The files of an open connection in its directory (see `daemon_client`).
ENGINE = "docker.sock"
CONTROL = "control.sock"
# The lock of a command that joins the connection, and of the daemon when it exits. No lab's lock has this name.
LOCK = "@tunnel.lock"

_FORM = "write ssh://user@machine, ssh://user@machine:2222, or a Host of ~/.ssh/config"


@dataclass(frozen=True, slots=True)
class Host:
    """The parts of an SSH address. ~/.ssh/config (ssh_config(5)) decides the parts that are None."""

    machine: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        """Return the address as a user types it."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        address = ":" in self.machine  # IPv6: in brackets, which ssh(1) accepts only after ssh://
        machine = f"[{self.machine}]" if address else self.machine
        return f"{'ssh://' if user or port or address else ''}{user}{machine}{port}"

    @property
    def key(self) -> str:
        """A short name for the host's files, which no lab can have. unix(7) limits socket paths to 107 characters."""
        return "@" + hashlib.sha256(str(self).encode()).hexdigest()[:10]


def parse(text: str) -> Host:
    """Parse the address of a host. Raises InputError."""
    rest = text.removeprefix("ssh://").removesuffix("/")
    user, at, place = rest.rpartition("@")
    machine, colon, number = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    if not colon:
        machine, number = place, ""
    port = int(number) if number.isascii() and number.isdecimal() and len(number) <= 5 else 0
    if (
        ("://" in rest)
        or not _MACHINE.fullmatch(machine)
        or (at and not _USER.fullmatch(user))
        or (colon and not 0 < port < 65536)
    ):
        raise InputError(f"{text[:300]!r} is not a host", remedy=_FORM)
    return Host(machine.strip("[]"), user or None, port or None)
