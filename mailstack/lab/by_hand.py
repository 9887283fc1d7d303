"""Find what was changed by hand in a lab: Postfix's files newer than the start of their container, and networks.

Such changes are deliberate. They last until the container is restarted or created anew; `up --reset` undoes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from mailstack.engine.engine import Engine
from mailstack.errors import EngineError
from mailstack.lab.running import RunningLab
from mailstack.model import ServiceState
from mailstack.roles import Role

# The entrypoints of Postfix's containers create /run/started when the configuration is complete. `mailstack account`
# changes the table of added accounts.
_FIND = (
    "[ ! -e /run/started ] || "
    "find /etc/postfix /run/relay -type f -newer /run/started ! -name 'added.lmdb' 2>/dev/null | sort"
)


def edited(lab: RunningLab, services: list[ServiceState]) -> dict[str, list[str]]:
    """Return service → what was changed by hand: files of an MTA that runs, `network NAME` for one joined by hand."""
    found = _files(lab.engine, services)
    defined = {service.name: service.networks for service in lab.state.services if service.networks}
    for service in services:
        joined = sorted(set(service.addresses).difference(defined.get(service.name, service.addresses)))
        if joined:
            found[service.name] = [*found.get(service.name, ()), *(f"network {name}" for name in joined)]
    return found


def _files(engine: Engine, services: list[ServiceState]) -> dict[str, list[str]]:
    mtas = [service for service in services if service.runs and service.role and service.role.is_a(Role.MTA)]

    def files(service: ServiceState) -> list[str]:
        try:
            return engine.execute(service.container, ["sh", "-c", _FIND]).stdout.split("\n")[:-1]
        except EngineError:  # it ends at this moment
            return []

    with ThreadPoolExecutor() as pool:
        found = dict(zip((service.name for service in mtas), pool.map(files, mtas), strict=True))
    return {name: paths for name, paths in found.items() if paths}


def described(changed: Mapping[str, list[str]]) -> str:
    """Return a phrase that names the changes."""
    return "; ".join(f"{name}: {', '.join(paths)}" for name, paths in changed.items())
