"""What a lab claims of its host: ports and subnets that are nobody else's, and others where somebody was faster."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from mailstack import state
from mailstack.engine.engine import Engine
from mailstack.errors import EngineError
from mailstack.model import LABEL_OWNER, PORTS, Deadline, Json, Network
from mailstack.network import ports, subnets
from mailstack.network.subnets import Taken
from mailstack.state import Home
from mailstack.target.target import Target

CLAIMS = 2  # how often something else is chosen, when somebody was faster
# How long a network may still come that Compose no longer waits for, in seconds.
_STRAGGLER_SECONDS = 3.0


def of_ports(target: Target, home: Home, name: str) -> dict[str, int]:
    """Free ports of 127.0.0.1 for a new lab, here and on its target. Raises HostError when there are too few."""
    promised = state.promised_ports(home, name).union(target.listening())
    numbers = ports.choose(target.seed(name), len(PORTS), promised)
    return {port.name: number for port, number in zip(PORTS, numbers, strict=True)}


def of_subnets(
    target: Target,
    home: Home,
    wanted: state.State,
    document: Json,
    networks: Sequence[Network],
    kept: Mapping[str, str] | None = None,
    refused: Collection[str] = (),
) -> dict[str, str]:
    """A subnet for each network of the lab that asks for none; what it has (`kept`), it keeps.

    Free is what neither `networks` (all that the engine has), nor this host's routes, nor another lab that is about to
    come up have taken. Raises HostError when none is left, InputError where the range to take them from is none.
    """
    names = subnets.wanting(document)
    if not names:
        return {}
    own = {document["networks"][name]["name"] for name in names}
    others = _others(target, networks, own)
    for lab in state.others(home, wanted.lab):
        others += subnets.taken(lab.subnets.values(), f"the lab {lab.lab}")
    others += subnets.taken(refused, "somebody who was faster")
    return subnets.choose(f"{wanted.owner} {wanted.lab}", names, others, kept, host=target.host)


def make_network(engine: Engine, name: str, labels: dict[str, str]) -> bool:
    """Make an ordinary network on a free subnet; False when there is one of this name already. Raises HostError."""
    others = _others(engine.target, engine.networks())
    for left in reversed(range(CLAIMS)):
        subnet = subnets.choose(name, [name], others, host=engine.target.host)[name]
        try:
            return engine.make_network(name, labels, subnet)
        except EngineError:
            if not left:
                raise
            others += subnets.taken([subnet], "somebody who was faster")
    raise AssertionError


def _others(target: Target, networks: Sequence[Network], own: Collection[str] = ()) -> list[Taken]:
    """What others have taken of the subnets: networks, `own` not among them, and this host by its routes."""
    found = subnets.of_networks(each for each in networks if each.name not in own)
    if not target.shares_kernel:
        return found  # another machine has other routes
    # The bridges of `own` have routes, too.
    mine = {subnet for each in networks if each.name in own for subnet in each.subnets}
    return found + [each for each in subnets.host_routes() if str(each.subnet) not in mine]


def name_volume(project: str, document: Json) -> tuple[str, dict[str, str]] | None:
    """The volume by which the name of a lab is claimed, with its labels; None where the lab has none that will do.

    For Compose, whatever is called like the lab's things is the lab's, and it makes them again as it wants them: of two
    people who bring up labs of one name at the same moment, one must stop before that. The engine gives the name of a
    volume to one only, so the first of the lab's own is made before Compose does it, and as Compose would.
    """
    for key, volume in sorted((document.get("volumes") or {}).items()):
        labels = volume.get("labels") or {}
        if labels.get(LABEL_OWNER) and not volume.get("driver_opts") and volume.get("driver", "local") == "local":
            own = {"com.docker.compose.project": project, "com.docker.compose.volume": key}
            return str(volume["name"]), {**labels, **own}
    return None


def taken_ports(target: Target, document: Json, idle: Collection[str]) -> list[str]:
    """Of the addresses that are published for services which are `idle`: those that something on the host listens on.

    Raises HostError.
    """
    return ports.taken(document, idle, target.port_test())


def lost_ports(target: Target, wanted: state.State, document: Json, idle: Collection[str]) -> list[str]:
    """Of the ports that a lab has claimed: those that something listens on, though the services behind are `idle`."""
    claimed = set(wanted.ports.values())
    return [each for each in taken_ports(target, document, idle) if int(each.rpartition(":")[2]) in claimed]


def lost_subnets(engine: Engine, wanted: state.State, document: Json) -> list[str]:
    """Of the subnets that a lab has claimed: those whose network the engine has not made."""
    called = {document["networks"][name]["name"]: name for name in wanted.subnets}
    deadline = Deadline.after(_STRAGGLER_SECONDS)
    while True:
        missing = set(called) - {network.name for network in engine.networks()}
        # When the engine refuses one, Compose ends, though the engine may still be making another.
        if len(missing) <= 1 or deadline.passed():
            return [wanted.subnets[called[each]] for each in sorted(missing)]
        time.sleep(0.02)  # the engine has no event for "it was refused"
