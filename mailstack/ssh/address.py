"""A Docker host that is reached over SSH, as the user names it. Nothing here connects to one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from mailstack.errors import InputError

# A name, an address, or an alias of ~/.ssh/config; nothing that ssh(1) or a shell could take for something else.
_MACHINE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]+\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,63}")
# What a connection that is kept open has in a directory of its own (see `daemon_client`).
ENGINE = "docker.sock"
CONTROL = "control.sock"
# Held by a command that joins, and by the process that keeps the connection when it ends; no lab's lock is called so.
LOCK = "@tunnel.lock"

_FORM = "write ssh://user@machine, ssh://user@machine:2222, or a Host of ~/.ssh/config"


@dataclass(frozen=True, slots=True)
class Host:
    """Where SSH leads; what is None is for ~/.ssh/config to say (ssh_config(5))."""

    machine: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        """As a person would type it."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        address = ":" in self.machine  # of IPv6: in brackets, which ssh(1) takes after ssh:// alone
        machine = f"[{self.machine}]" if address else self.machine
        return f"{'ssh://' if user or port or address else ''}{user}{machine}{port}"

    @property
    def key(self) -> str:
        """A short name for its files, which no lab can have: a socket's path has 107 characters at most (unix(7))."""
        return "@" + hashlib.sha256(str(self).encode()).hexdigest()[:10]


def parse(text: str) -> Host:
    """The host that `text` names. Raises InputError."""
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
        raise InputError(f"{text[:300]!r} is no host", remedy=_FORM)
    return Host(machine.strip("[]"), user or None, port or None)
