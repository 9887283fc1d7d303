"""Find Postfix's configuration that was changed by hand in a lab: files newer than the start of their container.

Such changes are deliberate. They last until the container is restarted or created anew; `up --reset` undoes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from mailstack.engine.engine import Engine
from mailstack.errors import EngineError
from mailstack.model import ServiceState
from mailstack.roles import Role

# The entrypoints of Postfix's containers create /run/started when the configuration is complete. `mailstack account`
# changes the table of added accounts.
_FIND = (
    "[ ! -e /run/started ] || "
    "find /etc/postfix /run/relay -type f -newer /run/started ! -name 'added.lmdb' 2>/dev/null | sort"
)


def edited(engine: Engine, services: list[ServiceState]) -> dict[str, list[str]]:
    """Return service → files changed by hand, for each MTA that runs and has some."""
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
    """Return a phrase that names the files."""
    return "; ".join(f"{name}: {', '.join(paths)}" for name, paths in changed.items())
