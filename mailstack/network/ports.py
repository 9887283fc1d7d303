"""Which ports of this machine a lab is published on.

The controller chooses them, so that they stay the same when a container is stopped and started again: the engine would
choose others. Below the range from which systems take the ports of outgoing connections (32768 and up).
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
# Of all addresses and of 127.0.0.1, as the kernel writes them on a machine of either byte order; ::1 is another place.
_LOOPBACK = {"00000000", "0100007F", "7F000001", "0" * 32}


@functools.cache
def loopback_name() -> str:
    """The host that clients are told: `localhost`, which is in the servers' certificates, or the address without it.

    fetchmail, mbsync and s-nail match no IP address in a certificate (RFC 6125, section 1.7.2, leaves it out). A client
    that tries ::1 first is refused there at once, and goes on with 127.0.0.1.
    """
    try:
        found = socket.getaddrinfo("localhost", None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        found = []
    return "localhost" if any(address[4][0] == "127.0.0.1" for address in found) else "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether nothing on this machine listens on 127.0.0.1:port, or could not be made to."""
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
    """The ports on which something listens for 127.0.0.1, in the lines of /proc/net/tcp and tcp6 (proc_pid_net(5))."""
    found = set()
    for line in table:
        words = line.split()
        if len(words) > 3 and words[3] == _LISTEN and (local := words[1].rpartition(":"))[0] in _LOOPBACK:
            found.add(int(local[2], 16))
    return found


def taken(document: Json, services: Collection[str], is_free: Callable[[int], bool] = is_free) -> list[str]:
    """Of the addresses that a resolved compose document publishes for `services`: those that something listens on."""
    found = []
    for service in services:
        for port in document.get("services", {}).get(service, {}).get("ports", ()):
            number, host = str(port.get("published", "")), port.get("host_ip", "")
            if host in ("127.0.0.1", "", "0.0.0.0") and number.isdecimal() and not is_free(int(number)):
                found.append(f"{host or '0.0.0.0'}:{number}")
    return found


def candidates(name: str) -> Iterator[int]:
    """Every port of the range, from a place that depends on the lab's name: so a lab tends to keep its ports."""
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % (_LAST - _FIRST)
    for step in range(_LAST - _FIRST):
        yield _FIRST + (start + step) % (_LAST - _FIRST)


def choose(name: str, count: int, promised: Collection[int] = ()) -> list[int]:
    """`count` ports for the lab `name` that are free here, none `promised`. Raises HostError for want of them."""
    free: list[int] = []
    for port in candidates(name):
        if len(free) == count:
            return free
        if port not in promised and is_free(port):
            free.append(port)
    raise HostError(f"fewer than {count} free ports are left from {_FIRST} to {_LAST} on 127.0.0.1")
