"""Which subnets a lab's networks have.

A network that asks for nothing is given one of the engine's default pools: there are thirty, of thousands of addresses
each. A lab's networks ask for small ones, from a range of their own: so hundreds of labs have room beside each other.
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
# Private (RFC 1918), and seldom used. Then, where all of 10.0.0.0/8 leads into a company's network, say, the last of
# the engine's own pools.
_RANGES = "10.213.0.0/16,192.168.240.0/20"
_PREFIX = 27  # the gateway and 29 containers
# Shorter prefixes are no network, but the way to whatever is not known better: 0.0.0.0/0, or 0.0.0.0/1 and 128.0.0.0/1.
_SHORTEST = 2
_SHOWN = 8  # of what takes the subnets, in a message


@dataclass(frozen=True, slots=True)
class Taken:
    """A subnet that is no longer free, and whose it is."""

    subnet: IPv4Network
    by: str


def ranges() -> list[IPv4Network]:
    """Where subnets are taken from, in order: `MAILSTACK_SUBNETS`, else mailstack's own. Raises InputError."""
    found = []
    for text in (os.environ.get(SETTING) or _RANGES).split(","):
        try:
            network = IPv4Network(text.strip())
        except ValueError as error:
            raise _wrong(f"{text.strip()!r}: {error}") from None
        if network.prefixlen > _PREFIX:
            raise _wrong(f"{network} is too small for a network of a lab, which is a /{_PREFIX}")
        found.append(network)
    return found


def _wrong(why: str) -> InputError:
    return InputError(f"{SETTING}: {why}", remedy="write one range or more, like 10.213.0.0/16,192.168.240.0/20")


def routes(table: str) -> list[Taken]:
    """The networks that a host reaches, from the text of /proc/net/route (proc(5): hexadecimal, in host byte order)."""
    found = []
    for line in table.splitlines()[1:]:
        device, destination, *rest = line.split()
        prefix = int(rest[5], 16).bit_count()
        if prefix >= _SHORTEST:
            address = IPv4Address(struct.pack("=L", int(destination, 16)))
            found.append(Taken(IPv4Network((address, prefix)), f"the route through {device}"))
    return found


def host_routes() -> list[Taken]:
    """The same, of this host; none where it does not say."""
    try:
        return routes(Path("/proc/net/route").read_text(encoding="utf-8"))
    except OSError:
        return []


def of_networks(networks: Iterable[Network]) -> list[Taken]:
    """The subnets of an engine's networks."""
    return [each for network in networks for each in taken(network.subnets, f"the network {network.name}")]


def taken(given: Iterable[str], by: str) -> list[Taken]:
    """Subnets that somebody has; those of IPv6 are nobody's rivals."""
    return [Taken(IPv4Network(subnet, strict=False), by) for subnet in given if "." in subnet]


def candidates(key: str) -> Iterator[IPv4Network]:
    """Every subnet there is, from a place in each range that depends on `key`: two labs seldom ask for the same."""
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])
    for whole in ranges():
        first, count = int(whole.network_address), 1 << (_PREFIX - whole.prefixlen)
        for step in range(count):
            yield IPv4Network((first + ((start + step) % count << (32 - _PREFIX)), _PREFIX))


def choose(
    key: str,
    names: Sequence[str],
    others: Sequence[Taken],
    kept: Mapping[str, str] | None = None,
    *,
    host: str = "",
) -> dict[str, str]:
    """A free subnet for each of the networks `names`; the one that it had (`kept`), where nobody else has that.

    Raises HostError when there are none left, InputError for a range that is none.
    """
    kept = kept or {}
    had = {name: IPv4Network(kept[name]) for name in names if name in kept}
    chosen = {name: subnet for name, subnet in had.items() if not _overlaps(subnet, others)}
    free = (each for each in candidates(key) if not _overlaps(each, others) and each not in chosen.values())
    for name in names:
        if name not in chosen:
            if (subnet := next(free, None)) is None:
                raise _none_left(others, host)
            chosen[name] = subnet
    return {name: str(chosen[name]) for name in names}


def _overlaps(subnet: IPv4Network, others: Iterable[Taken]) -> bool:
    return any(subnet.overlaps(each.subnet) for each in others)


def _none_left(others: Sequence[Taken], host: str) -> HostError:
    within = ranges()
    theirs = [each for each in others if any(each.subnet.overlaps(whole) for whole in within)]
    # The engine's networks first: these can be removed. A bridge's route is that of its network, said twice.
    theirs.sort(key=lambda each: each.by.startswith("the route"))
    once = {each.subnet: each for each in reversed(theirs)}
    lines = [f"{each.subnet} is taken by {each.by}" for each in reversed(once.values())]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return HostError(
        f"no subnet is free for a network of the lab in {', '.join(map(str, within))}",
        details="\n".join([*lines[:_SHOWN], *more]),
        remedy=f"{hint.line('down', '--stale', host=host)} removes what labs have left; "
        f"{SETTING}=10.200.0.0/16, say, is another range",
    )


def wanting(document: Json) -> list[str]:
    """The networks of a resolved compose document that are to be made, and ask for no subnet of their own."""
    used: dict[str, None] = {}
    for service in document.get("services", {}).values():
        used |= dict.fromkeys(service.get("networks") or {})
    networks = document.get("networks", {})
    return [name for name in used if name in networks and _wants(networks[name] or {})]


def _wants(network: Json) -> bool:
    return not network.get("external") and not network.get("ipam") and network.get("driver", "bridge") == "bridge"


def overlay(subnets: Mapping[str, str]) -> Json:
    """What the compose files lack: the subnets."""
    return {"networks": {name: {"ipam": {"config": [{"subnet": subnet}]}} for name, subnet in subnets.items()}}
