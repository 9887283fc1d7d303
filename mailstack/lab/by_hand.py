"""Find what was changed by hand in a lab: Postfix's configuration, and the networks of a container.

Such changes are deliberate, and `up --reset` undoes them. The sender's configuration is in a volume: changes last until
then. Those in other MTAs last until their container is restarted or created anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from mailstack.engine.engine import Engine
from mailstack.errors import EngineError
from mailstack.lab.running import RunningLab
from mailstack.model import Json, ServiceState
from mailstack.roles import Role

CONFIGURATION = "/etc/postfix"

# The entrypoints of Postfix create /run/started when the configuration is complete. The sender keeps a copy
# of what it generated, and a file that differs from it was changed by hand (stack/sender/configuration.pl); it may have
# been started just now. Elsewhere, newer files were changed. `mailstack account` changes the table of added accounts.
_FIND = r"""
if [ -d /etc/postfix/.generated ]; then
    waited=0
    while [ ! -e /run/started ] && [ "$waited" -lt 100 ]; do sleep 0.02; waited=$((waited + 1)); done
    cd /etc/postfix
    LC_ALL=C diff -rq -x .generated . .generated | sed -nE \
        -e 's|^Files \./(.*) and .* differ$|/etc/postfix/\1|p' \
        -e 's|^Only in \.generated(.*): (.*)|/etc/postfix\1/\2|p' \
        -e 's|^Only in \.(.*): (.*)|/etc/postfix\1/\2|p'
    find /run/relay -type f -newer /run/started
elif [ -e /run/started ]; then
    find /etc/postfix /run/relay -type f -newer /run/started ! -name 'added.lmdb' 2>/dev/null
fi | sort
"""


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


def volumes(document: Json) -> dict[str, str]:
    """Return service → volume for those that have their configuration of Postfix in a volume: it outlives containers.

    `document` are the resolved compose files.
    """
    return {
        name: document["volumes"][mount["source"]]["name"]
        for name, service in document["services"].items()
        for mount in service.get("volumes") or ()
        if mount.get("type") == "volume" and mount["target"] == CONFIGURATION
    }


def described(changed: Mapping[str, list[str]]) -> str:
    """Return a phrase that names the changes."""
    return "; ".join(f"{name}: {', '.join(paths)}" for name, paths in changed.items())
