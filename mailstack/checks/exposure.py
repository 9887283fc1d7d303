"""Exposure: the ports of a lab that other users of its host and its own sender can reach."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from mailstack.checks import Family
from mailstack.checks.bench import Bench
from mailstack.checks.judging import expect
from mailstack.engine import projects
from mailstack.errors import EngineError
from mailstack.model import ServiceState
from mailstack.network import subnets
from mailstack.roles import Role
from mailstack.target.target import Target

family = Family("exposure")

# The TCP ports that LMTP and SASL had before they had sockets, and that Dovecot's manual uses. Dialled even if nothing
# is listed as listening there.
_LMTP_SASL_PORTS = frozenset({24, 12345})
_SECONDS = 1.0  # timeout for an address of this machine

_TABLES = ("cat", "/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6")

# Dial each ADDRESS PORT of standard input, and print those that answer (nc(1)).
_DIAL = 'while read -r address port; do nc -z -w 1 "$address" "$port" </dev/null && echo "$address $port"; done; :'

_SOCKETS = "/run/sockets"

SocketAddress = tuple[str, int]  # address, port


def listeners(tables: str) -> set[SocketAddress]:
    """Return the listening TCP and UDP addresses except loopback, from the kernel's tables (proc(5), /proc/net/tcp)."""
    found = set()
    for line in tables.splitlines():
        fields = line.split()
        # State 0A is LISTEN; 07 is a datagram socket without a peer.
        if len(fields) > 3 and re.fullmatch(r"[0-9A-F]{8,32}:[0-9A-F]{4}", fields[1]) and fields[3] in ("0A", "07"):
            words, _, port = fields[1].partition(":")
            # Each word of 32 bits is in this machine's byte order.
            data = b"".join(bytes.fromhex(words[n : n + 8])[::-1] for n in range(0, len(words), 8))
            address = ipaddress.ip_address(data)
            address = getattr(address, "ipv4_mapped", None) or address
            if not address.is_loopback:
                found.add((str(address), int(port, 16)))
    return found


def reachable(addresses: Iterable[SocketAddress]) -> set[SocketAddress]:
    """Return those of `places` that accept a connection from this machine."""

    def dial(peer: SocketAddress) -> SocketAddress | None:
        with contextlib.suppress(OSError), socket.create_connection(peer, timeout=_SECONDS):
            return peer
        return None

    with ThreadPoolExecutor(8) as pool:
        return {peer for peer in pool.map(dial, addresses) if peer}


def _on_this_machine(target: Target, addresses: Iterable[SocketAddress]) -> set[SocketAddress]:
    """Return the places on networks of this machine; none if the engine runs elsewhere or in a virtual machine."""
    on = [] if target.host else [route.subnet for route in subnets.host_routes()]
    return {peer for peer in addresses if any(ipaddress.ip_address(peer[0]) in subnet for subnet in on)}


def _listening(bench: Bench, service: ServiceState) -> set[int]:
    """Return the ports on which a container listens; none if the container has no cat(1)."""
    with contextlib.suppress(EngineError):
        return {port for _, port in listeners(bench.engine.execute(service.container, _TABLES).stdout)}
    return set()


def _on_sender_networks(
    bench: Bench, addresses: Iterable[SocketAddress], owners: Mapping[str, ServiceState]
) -> set[SocketAddress]:
    """Return the places on the sender's own networks."""
    networks = bench.lab.one(Role.SENDER).addresses
    return {
        (address, port)
        for address, port in addresses
        if any(own == address and network in networks for network, own in owners[address].addresses.items())
    }


def _reachable_from_sender(bench: Bench, addresses: Iterable[SocketAddress]) -> set[SocketAddress]:
    lines = "".join(f"{address} {port}\n" for address, port in sorted(addresses))
    result = bench.engine.execute(bench.container(Role.SENDER), ["sh", "-c", _DIAL], input=lines.encode())
    return {(address, int(port)) for address, _, port in (line.partition(" ") for line in result.stdout.splitlines())}


def _describe(addresses: Iterable[SocketAddress], owners: Mapping[str, ServiceState]) -> str:
    return ", ".join(f"{owners[address].name} at {address}:{port}" for address, port in sorted(addresses))


@family(
    "ports",
    "nothing but the published services can be reached at any address of the lab",
    "docs/decisions.md, closed; Docker's manual, bridge networks",
)
def only_published_services_are_reached(bench: Bench) -> str:
    services = [each for each in bench.lab.services() if each.state == "running"]
    owners = {address: each for each in services for address in each.addresses.values() if address}
    with ThreadPoolExecutor(8) as pool:
        listening = dict(pool.map(lambda each: (each.name, _listening(bench, each)), services))
    open_by_hand = bench.lab.defined.names(Role.SENDER) if bench.lab.defined.blank else []
    for name in open_by_hand:  # Debian's inet_interfaces = all; its mynetworks are the machine's own addresses
        listening[name] -= {25}
    hidden = [f"{s.name}:{port}" for s in services for port in sorted(listening[s.name] - set(s.ports))]
    expect(not hidden, f"listening on the network, but not published: {', '.join(hidden)}")
    dialled = {
        (address, port)
        for address, each in owners.items()
        for port in listening[each.name] | set(each.ports) | _LMTP_SASL_PORTS
    }
    published = {peer for peer in dialled if peer[1] in owners[peer[0]].ports}
    near_sender, local = _on_sender_networks(bench, dialled, owners), _on_this_machine(bench.lab.target, dialled)
    from_sender, from_here = _reachable_from_sender(bench, near_sender), reachable(local)
    expect(from_sender & published, "the sender reaches none of the published services, so nothing is proven")
    reached = from_sender | from_here
    expect(reached <= published, f"reachable, but not published: {_describe(reached - published, owners)}")
    counts = (
        f"the sender reached {len(from_sender)} of {len(near_sender)}, this machine {len(from_here)} of {len(local)}"
    )
    return f"{counts} ports at {len(owners)} addresses, all of them published"


@family(
    "sockets",
    "LMTP and SASL are sockets, in a volume that only postfix and dovecot have",
    "Dovecot's manual, unix_listener; postconf(5), virtual_transport and smtpd_sasl_path",
)
def sockets_are_private(bench: Bench) -> str:
    volume = f"{projects.project_name(bench.lab.name)}_sockets"
    users = bench.engine.users_of(volume)
    names = {each.container: each.name for each in bench.lab.services()}
    others = sorted(
        names.get(each, each[:12]) for each in users - set(map(bench.container, (Role.SUBMISSION, Role.STORE)))
    )
    expect(users, f"no container mounts {volume}")
    expect(not others, f"{volume} is also mounted by {', '.join(others)}")
    paths = (_SOCKETS, f"{_SOCKETS}/lmtp", f"{_SOCKETS}/sasl")
    result = bench.engine.execute(bench.container(Role.STORE), ["stat", "-c", "%F %a %n", *paths])
    evidence = ", ".join(result.stdout.splitlines()) or result.stderr.strip()
    kinds = re.findall(r"^(\w+) \d*?(\d) ", result.stdout, re.M)
    expected = [("directory", "0"), ("socket", "0"), ("socket", "0")]
    expect(kinds == expected, f"missing, or accessible to others: {evidence}")
    return evidence
