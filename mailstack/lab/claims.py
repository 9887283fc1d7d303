"""Allocate ports and subnets for a lab, and find those that another process took first."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from mailstack import state
from mailstack.engine import projects
from mailstack.engine.engine import Engine
from mailstack.errors import EngineError
from mailstack.model import LABEL_OWNER, PORTS, Deadline, Json, Network
from mailstack.network import ports, subnets
from mailstack.network.subnets import SubnetInUse
from mailstack.state import Home
from mailstack.target.target import Target

CLAIMS = 2  # attempts to allocate, when another process takes ports or subnets first
# Seconds to wait for a network that the engine may still create after Compose has failed.
_STRAGGLER_SECONDS = 3.0


def allocate_ports(target: Target, home: Home, name: str) -> dict[str, int]:
    """Return ports of 127.0.0.1 for a new lab that are free here and on its target. Raises HostError for too few."""
    reserved = state.reserved_ports(home, name).union(target.listening())
    # Users begin at different ports, so that a class that types `up` at the same moment does not compete for them.
    seed = target.seed(projects.current_user().prefix + name)
    numbers = ports.choose(seed, len(PORTS), reserved)
    return {port.name: number for port, number in zip(PORTS, numbers, strict=True)}


def allocate_subnets(
    target: Target,
    home: Home,
    desired: state.State,
    document: Json,
    networks: Sequence[Network],
    current: Mapping[str, str] | None = None,
    refused: Collection[str] = (),
) -> dict[str, str]:
    """Return a subnet for each network of the lab whose definition sets none; subnets in `kept` are kept.

    A subnet is free unless it overlaps with one of `networks` (all networks of the engine), a route of this host, a
    subnet of another lab that is coming up, or one of `refused`. Raises HostError when none is left, InputError when
    the configured range is invalid.
    """
    names = subnets.networks_without_subnet(document)
    if not names:
        return {}
    own = {document["networks"][name]["name"] for name in names}
    in_use = _subnets_in_use(target, networks, own)
    for lab in state.others(home, desired.lab):
        in_use += subnets.in_use(lab.subnets.values(), f"the lab {lab.lab}")
    in_use += subnets.in_use(refused, "another process")
    return subnets.choose(f"{desired.owner} {desired.lab}", names, in_use, current, host=target.host)


def make_network(engine: Engine, name: str, labels: dict[str, str]) -> bool:
    """Create a network on a free subnet; return False when one of this name exists already. Raises HostError."""
    in_use = _subnets_in_use(engine.target, engine.networks())
    for tries_left in reversed(range(CLAIMS)):
        subnet = subnets.choose(name, [name], in_use, host=engine.target.host)[name]
        try:
            return engine.make_network(name, labels, subnet)
        except EngineError:
            if not tries_left:
                raise
            in_use += subnets.in_use([subnet], "another process")
    raise AssertionError


def _subnets_in_use(target: Target, networks: Sequence[Network], own: Collection[str] = ()) -> list[SubnetInUse]:
    """Return the subnets in use: those of `networks` except `own`, and those of this host's routes."""
    in_use = subnets.of_networks(each for each in networks if each.name not in own)
    if not target.shares_kernel:
        return in_use  # the engine's machine has other routes than this one
    # The bridges of `own` have routes too.
    own_subnets = {subnet for each in networks if each.name in own for subnet in each.subnets}
    return in_use + [each for each in subnets.host_routes() if str(each.subnet) not in own_subnets]


def name_volume(project: str, document: Json) -> tuple[str, dict[str, str]] | None:
    """Return the volume that claims the name of a lab, and its labels; None when the lab has no suitable volume.

    Compose takes every object with the lab's name for the lab's, and recreates it. When two users bring up labs of one
    name at the same moment, one of them must stop before that. A volume name exists once on an engine: so the lab's
    first volume is created before Compose runs, exactly as Compose would create it.
    """
    for key, volume in sorted((document.get("volumes") or {}).items()):
        labels = volume.get("labels") or {}
        if labels.get(LABEL_OWNER) and not volume.get("driver_opts") and volume.get("driver", "local") == "local":
            own = {projects.LABEL_PROJECT: project, "com.docker.compose.volume": key}
            return str(volume["name"]), {**labels, **own}
    return None


def taken_ports(target: Target, document: Json, idle: Collection[str]) -> list[str]:
    """Return the published addresses of `idle` services on which another process of the host listens.

    Raises HostError.
    """
    return ports.taken(document, idle, target.port_test())


def lost_ports(target: Target, desired: state.State, document: Json, idle: Collection[str]) -> list[str]:
    """Return the lab's own ports on which a process listens although their services are `idle`. Raises HostError."""
    claimed = set(desired.ports.values())
    return [each for each in taken_ports(target, document, idle) if int(each.rpartition(":")[2]) in claimed]


def lost_subnets(engine: Engine, desired: state.State, document: Json) -> list[str]:
    """Return the lab's subnets whose networks the engine has not created."""
    keys = {document["networks"][name]["name"]: name for name in desired.subnets}
    deadline = Deadline.after(_STRAGGLER_SECONDS)
    while True:
        missing = set(keys) - {network.name for network in engine.networks()}
        # Compose exits when the engine refuses one network, while the engine may still be creating another.
        if len(missing) <= 1 or deadline.passed():
            return [desired.subnets[keys[each]] for each in sorted(missing)]
        time.sleep(0.02)  # the engine has no event for a network that it refuses
