"""Find Postfix's configuration that was changed by hand in a lab: files newer than the start of their container.

Such changes are deliberate. They last until the container is restarted or created anew; `up --reset` undoes them.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailstack.engine.engine import Engine
from mailstack.engine.inventory import RUNNING
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
    """Return service → files changed by hand, for each running MTA that has such files."""
    found = {}
    for service in services:
        if service.state == RUNNING and service.role and service.role.is_a(Role.MTA):
            try:
                result = engine.execute(service.container, ["sh", "-c", _FIND])
            except EngineError:  # the container has just ended
                continue
            if files := result.stdout.split("\n")[:-1]:
                found[service.name] = files
    return found


def described(changed: Mapping[str, list[str]]) -> str:
    """Return a phrase that names the files."""
    return "; ".join(f"{name}: {', '.join(paths)}" for name, paths in changed.items())
