"""Choose the published ports of a lab on this machine.

The controller chooses them, because the engine would choose other ones each time a container starts. The range is below
the ephemeral ports of outgoing connections (32768 and up).
"""

from __future__ import annotations

import errno
import functools
import hashlib
import socket
from collections.abc import Callable, Collection, Iterable, Iterator

from mailstack.errors import HostError
from mailstack.model import Json

_FIRST, _LAST = 20000, 32000

_LISTEN = "0A"
# 0.0.0.0, 127.0.0.1 in either byte order, and :: as the kernel writes them. ::1 does not count: it is another address.
_LOOPBACK = {"00000000", "0100007F", "7F000001", "0" * 32}


@functools.cache
def loopback_name() -> str:
    """Return the host name for clients: `localhost`, or 127.0.0.1 when `localhost` does not resolve to that.

    The servers' certificates contain both. But fetchmail, mbsync and s-nail do not match IP addresses in a certificate
    (RFC 6125, section 1.7.2, leaves them out of scope). On ::1 a connection is refused at once, and clients go on with
    127.0.0.1.
    """
    try:
        addresses = socket.getaddrinfo("localhost", None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        addresses = []
    return "localhost" if any(address[4][0] == "127.0.0.1" for address in addresses) else "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether 127.0.0.1:port is free: neither in use nor privileged. Raises HostError."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise HostError(f"127.0.0.1:{port}: {error.strerror}") from None
    return True


def listening(table: Iterable[str]) -> set[int]:
    """Return the ports with a listener for 127.0.0.1, from lines of /proc/net/tcp and tcp6 (proc_pid_net(5))."""
    ports = set()
    for line in table:
        words = line.split()
        if len(words) > 3 and words[3] == _LISTEN and (local := words[1].rpartition(":"))[0] in _LOOPBACK:
            ports.add(int(local[2], 16))
    return ports


def taken(document: Json, services: Collection[str], is_free: Callable[[int], bool] = is_free) -> list[str]:
    """Return the published addresses of `services` in a resolved compose document on which a process listens."""
    addresses = []
    for service in services:
        for port in document.get("services", {}).get(service, {}).get("ports", ()):
            number, host = str(port.get("published", "")), port.get("host_ip", "")
            if host in ("127.0.0.1", "", "0.0.0.0") and number.isdecimal() and not is_free(int(number)):
                addresses.append(f"{host or '0.0.0.0'}:{number}")
    return addresses


def candidates(name: str) -> Iterator[int]:
    """Yield all ports of the range, starting at a hash of the lab's name: so a lab tends to keep its ports."""
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % (_LAST - _FIRST)
    for step in range(_LAST - _FIRST):
        yield _FIRST + (start + step) % (_LAST - _FIRST)


def choose(name: str, count: int, reserved: Collection[int] = ()) -> list[int]:
    """Return `count` free ports for the lab `name`, none of them `promised`. Raises HostError for too few."""
    free: list[int] = []
    for port in candidates(name):
        if len(free) == count:
            return free
        if port not in reserved and is_free(port):
            free.append(port)
    raise HostError(f"fewer than {count} free ports are left from {_FIRST} to {_LAST} on 127.0.0.1")
