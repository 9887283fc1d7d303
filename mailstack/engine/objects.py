"""What an engine has: its version, and containers, networks and volumes by their labels."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from mailstack import roles
from mailstack.engine.client import Client, gone, mapped, sdk
from mailstack.engine.inventory import Container, Inventory, Volume
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, Network, ServiceState


class Things(Client):
    """The questions about what an engine has."""

    @mapped
    def version(self) -> dict[str, Any]:
        """The engine's version document."""
        return dict(self._quick.version(api_version=False))

    @mapped
    def info(self) -> dict[str, Any]:
        """The engine's description of its host."""
        return dict(self._quick.info())

    @functools.cached_property
    def identity(self) -> str:
        """The engine's ID, asked once."""
        return str(self.info().get("ID", ""))

    @mapped
    def services(self, project: str, name: str = "", *, role: roles.Role | None = None) -> list[ServiceState]:
        """The containers of a Compose project, one per service, in any state; of one service or role, where given."""
        wanted = [f"com.docker.compose.project={project}", *([f"com.docker.compose.service={name}"] if name else [])]
        states = []
        for summary in self._quick.containers(all=True, filters={"label": wanted}):
            service = summary["Labels"].get("com.docker.compose.service", "")
            if not service or summary["Labels"].get("com.docker.compose.oneoff") == "True":
                continue
            if role and not ((its := roles.of_labels(summary["Labels"])) and its.is_a(role)):
                continue
            with gone():  # between the two questions
                states.append(_state(service, self._quick.inspect_container(summary["Id"])))
        return sorted(states, key=lambda state: state.name)

    @mapped
    def labs(self, owner: str | None = None) -> dict[str, str]:
        """Every lab that has anything on this engine: name → owner. With `owner`, that owner's alone."""
        found = self._labels(f"{LABEL_OWNER}={owner}" if owner else LABEL_LAB)
        return {labels[LABEL_LAB]: labels.get(LABEL_OWNER, "") for labels in found if labels.get(LABEL_LAB)}

    @mapped
    def expires(self, lab: str, owner: str) -> str | None:
        """When a lab expires: seconds of the epoch, or "never"; None when it has nothing on this engine."""
        found = self._labels(f"{LABEL_LAB}={lab}", f"{LABEL_OWNER}={owner}")
        return next((labels[LABEL_EXPIRES] for labels in found if LABEL_EXPIRES in labels), "never" if found else None)

    @mapped
    def inventory(self, lab: str) -> Inventory:
        """Everything that has a lab's label, whoever owns it, or is of its Compose project; and all networks."""
        filters = {"label": [f"{LABEL_LAB}={lab}"]}
        found = {}
        for label in (*filters["label"], f"com.docker.compose.project=mailstack-{lab}"):
            for each in self._quick.containers(all=True, filters={"label": [label]}):
                found[each["Id"]] = _container(each)
        volumes = self._quick.volumes(filters=filters)["Volumes"] or []
        return Inventory(
            lab,
            tuple(found.values()),
            tuple(Volume(each["Name"], each["Labels"] or {}) for each in volumes),
            tuple(self.networks()),
        )

    def owners(self, lab: str) -> set[str]:
        """The owners of the labs of this name. Raises EngineError."""
        return self.inventory(lab).owners()

    @mapped
    def networks(self) -> list[Network]:
        """All networks."""
        return [
            Network(
                each["Name"],
                each["Labels"] or {},
                tuple(pool["Subnet"] for pool in each["IPAM"]["Config"] or () if "Subnet" in pool),
            )
            for each in self._quick.networks()
        ]

    @mapped
    def claim(self, volume: str, labels: Mapping[str, str]) -> str:
        """Make a volume, unless there is one of this name; whose it is, by its label. Several may ask: one makes it."""
        made = self._quick.create_volume(volume, labels=dict(labels))
        return str((made["Labels"] or {}).get(LABEL_OWNER, ""))

    def _labels(self, *wanted: str) -> list[dict[str, str]]:
        """The labels of every container, network and volume that has the `wanted` ones."""
        filters = {"label": list(wanted)}
        labels: list[dict[str, str]] = [c["Labels"] for c in self._quick.containers(all=True, filters=filters)]
        labels += [n["Labels"] for n in self._quick.networks(filters=filters)]
        labels += [v["Labels"] or {} for v in self._quick.volumes(filters=filters)["Volumes"] or []]
        return labels

    @mapped
    def leftovers(self, lab: str, owner: str) -> list[str]:
        """Whatever carries this lab's and this owner's labels: `container NAME`, `network NAME`, `volume NAME`."""
        wanted = {"label": [f"{LABEL_LAB}={lab}", f"{LABEL_OWNER}={owner}"]}
        found = [f"container {c['Names'][0].lstrip('/')}" for c in self._quick.containers(all=True, filters=wanted)]
        found += [f"network {n['Name']}" for n in self._quick.networks(filters=wanted)]
        found += [f"volume {v['Name']}" for v in self._quick.volumes(filters=wanted)["Volumes"] or []]
        return found

    @mapped
    def remove(self, thing: str) -> None:
        """Remove one of `leftovers`, by force; one that has gone in the meantime is fine."""
        kind, name = thing.split(" ", 1)
        try:
            if kind == "container":
                self._api.remove_container(name, force=True, v=True)
            elif kind == "network":
                # Whoever else has joined the network (an application under test, say) is let go of.
                for guest in self._api.inspect_network(name)["Containers"] or {}:
                    self._api.disconnect_container_from_network(guest, name, force=True)
                self._api.remove_network(name)
            else:
                self._api.remove_volume(name, force=True)
        except sdk().errors.NotFound:
            pass


def _container(summary: Mapping[str, Any]) -> Container:
    return Container(
        name=summary["Names"][0].lstrip("/"),
        labels=summary["Labels"] or {},
        state=summary.get("State", ""),
        image=summary.get("Image", ""),
        mounted=tuple(str(mount["Source"]) for mount in summary.get("Mounts") or () if mount.get("Type") == "bind"),
    )


def _state(service: str, details: dict[str, Any]) -> ServiceState:
    state, settings = details["State"], details["NetworkSettings"]
    return ServiceState(
        name=service,
        image=details["Config"]["Image"],
        state=state["Status"],
        health=state.get("Health", {}).get("Status", ""),
        container=details["Id"],
        addresses={name: network["IPAddress"] for name, network in settings["Networks"].items()},
        ports={
            int(key.partition("/")[0]): int(bindings[0]["HostPort"])
            for key, bindings in (settings["Ports"] or {}).items()
            if bindings
        },
        exit_code=state["ExitCode"],
        role=roles.of_labels(details["Config"]["Labels"]),
    )
