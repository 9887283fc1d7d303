"""Choose the subnets of a lab's networks.

The engine gives a network without a subnet one of its default pools: about thirty, with thousands of addresses each. A
lab's networks get small subnets from a range of their own, so that hundreds of labs fit beside each other.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from mailstack.errors import HostError, InputError
from mailstack.model import Json, Network
from mailstack.text import hint

SETTING = "MAILSTACK_SUBNETS"
# Private (RFC 1918), and rarely used. The second range, the last of the engine's own pools, is for hosts that route all
# of 10.0.0.0/8 elsewhere, for example into a company's network.
_RANGES = "10.213.0.0/16,192.168.240.0/20"
_PREFIX = 27  # the gateway and 29 containers
# Routes with a shorter prefix are default routes, not networks: 0.0.0.0/0, or 0.0.0.0/1 with 128.0.0.0/1.
_SHORTEST = 2
_SHOWN = 8  # subnets in use that a message lists


@dataclass(frozen=True, slots=True)
class SubnetInUse:
    """A subnet in use, and its user."""

    subnet: IPv4Network
    by: str


def ranges() -> list[IPv4Network]:
    """Return the ranges for subnets, in order: `MAILSTACK_SUBNETS`, else mailstack's own. Raises InputError."""
    networks = []
    for text in (os.environ.get(SETTING) or _RANGES).split(","):
        try:
            network = IPv4Network(text.strip())
        except ValueError as error:
            raise _invalid_range(f"{text.strip()!r}: {error}") from None
        if network.prefixlen > _PREFIX:
            raise _invalid_range(f"{network} is too small for a network of a lab, which is a /{_PREFIX}")
        networks.append(network)
    return networks


def _invalid_range(why: str) -> InputError:
    return InputError(f"{SETTING}: {why}", remedy="write one range or more, like 10.213.0.0/16,192.168.240.0/20")


def routes(table: str) -> list[SubnetInUse]:
    """Return the routed networks in the text of /proc/net/route (proc(5): hexadecimal, in host byte order)."""
    routed = []
    for line in table.splitlines()[1:]:
        device, destination, *rest = line.split()
        prefix = int(rest[5], 16).bit_count()
        if prefix >= _SHORTEST:
            address = IPv4Address(struct.pack("=L", int(destination, 16)))
            routed.append(SubnetInUse(IPv4Network((address, prefix)), f"the route through {device}"))
    return routed


def host_routes() -> list[SubnetInUse]:
    """Return the routed networks of this host; none when /proc/net/route cannot be read."""
    try:
        return routes(Path("/proc/net/route").read_text(encoding="utf-8"))
    except OSError:
        return []


def of_networks(networks: Iterable[Network]) -> list[SubnetInUse]:
    """Return the subnets of an engine's networks."""
    return [each for network in networks for each in in_use(network.subnets, f"the network {network.name}")]


def in_use(given: Iterable[str], by: str) -> list[SubnetInUse]:
    """Return IPv4 subnets as in use by `by`; IPv6 subnets are skipped: they cannot overlap."""
    return [SubnetInUse(IPv4Network(subnet, strict=False), by) for subnet in given if "." in subnet]


def candidates(key: str) -> Iterator[IPv4Network]:
    """Yield all subnets of each range, from a hash of `key` on, so that two labs rarely try the same one."""
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])
    for whole in ranges():
        first, count = int(whole.network_address), 1 << (_PREFIX - whole.prefixlen)
        for step in range(count):
            yield IPv4Network((first + ((start + step) % count << (32 - _PREFIX)), _PREFIX))


def choose(
    key: str,
    names: Sequence[str],
    others: Sequence[SubnetInUse],
    current: Mapping[str, str] | None = None,
    *,
    host: str = "",
) -> dict[str, str]:
    """Return a free subnet for each of the networks `names`: its present one (`kept`), unless that overlaps another.

    Raises HostError when no subnet is left, InputError for an invalid range.
    """
    current = current or {}
    present = {name: IPv4Network(current[name]) for name in names if name in current}
    chosen = {name: subnet for name, subnet in present.items() if not _overlaps(subnet, others)}
    free = (each for each in candidates(key) if not _overlaps(each, others) and each not in chosen.values())
    for name in names:
        if name not in chosen:
            if (subnet := next(free, None)) is None:
                raise _exhausted(others, host)
            chosen[name] = subnet
    return {name: str(chosen[name]) for name in names}


def _overlaps(subnet: IPv4Network, others: Iterable[SubnetInUse]) -> bool:
    return any(subnet.overlaps(each.subnet) for each in others)


def _exhausted(others: Sequence[SubnetInUse], host: str) -> HostError:
    within = ranges()
    conflicts = [each for each in others if any(each.subnet.overlaps(whole) for whole in within)]
    # The engine's networks first: these can be removed. The route of a bridge repeats the subnet of its network.
    conflicts.sort(key=lambda each: each.by.startswith("the route"))
    unique = {each.subnet: each for each in reversed(conflicts)}
    lines = [f"{each.subnet} is used by {each.by}" for each in reversed(unique.values())]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return HostError(
        f"no free subnet for a network of the lab in {', '.join(map(str, within))}",
        details="\n".join([*lines[:_SHOWN], *more]),
        remedy=f"{hint.line('down', '--stale', host=host)} removes leftovers of labs; "
        f"{SETTING}=10.200.0.0/16, for example, sets another range",
    )


def networks_without_subnet(document: Json) -> list[str]:
    """Return the networks of a resolved compose document that are to be created and set no subnet."""
    attached: dict[str, None] = {}
    for service in document.get("services", {}).values():
        attached |= dict.fromkeys(service.get("networks") or {})
    networks = document.get("networks", {})
    return [name for name in attached if name in networks and _needs_subnet(networks[name] or {})]


def _needs_subnet(network: Json) -> bool:
    return not network.get("external") and not network.get("ipam") and network.get("driver", "bridge") == "bridge"


def overlay(subnets: Mapping[str, str]) -> Json:
    """Return an overlay for the compose files that sets the subnets."""
    return {"networks": {name: {"ipam": {"config": [{"subnet": subnet}]}} for name, subnet in subnets.items()}}
