"""The objects of an engine: its version, and containers, networks and volumes by their labels."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from mailstack import roles, state
from mailstack.engine.client import Client, ignore_missing, mapped, sdk
from mailstack.engine.inventory import Container, Inventory, Volume
from mailstack.engine.projects import LABEL_PROJECT, project_name
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, Network, ServiceState


class EngineObjects(Client):
    """Queries for the objects of an engine."""

    @mapped
    def version(self) -> dict[str, Any]:
        """Return the engine's version document."""
        return dict(self._quick.version(api_version=False))

    @mapped
    def info(self) -> dict[str, Any]:
        """Return the engine's description of its host."""
        return dict(self._quick.info())

    @functools.cached_property
    def identity(self) -> str:
        """Return the engine's ID, which is requested once."""
        return str(self.info().get("ID", ""))

    @mapped
    def services(self, project: str, name: str = "", *, role: roles.Role | None = None) -> list[ServiceState]:
        """Return a Compose project's containers in any state, one per service; optionally of one service or role."""
        labels = [f"{LABEL_PROJECT}={project}", *([f"com.docker.compose.service={name}"] if name else [])]
        states = []
        for summary in self._quick.containers(all=True, filters={"label": labels}):
            service = summary["Labels"].get("com.docker.compose.service", "")
            if not service or summary["Labels"].get("com.docker.compose.oneoff") == "True":
                continue
            if role and not ((its_role := roles.of_labels(summary["Labels"])) and its_role.is_a(role)):
                continue
            with ignore_missing():  # it may be removed between the two requests
                states.append(_state(service, self._quick.inspect_container(summary["Id"])))
        return sorted(states, key=lambda state: state.name)

    @mapped
    def labs(self, owner: str) -> set[str]:
        """Return the names of an owner's labs with any object on this engine."""
        matching = self._labels(f"{LABEL_OWNER}={owner}")
        return {labels[LABEL_LAB] for labels in matching if labels.get(LABEL_LAB)}

    @mapped
    def expires(self, lab: str, owner: str) -> str | None:
        """Return when a lab expires: seconds of the epoch, or "never"; None when it has no object on this engine."""
        matching = self._labels(f"{LABEL_LAB}={lab}", f"{LABEL_OWNER}={owner}")
        return next(
            (labels[LABEL_EXPIRES] for labels in matching if LABEL_EXPIRES in labels),
            "never" if matching else None,
        )

    @mapped
    def inventory(self, lab: str) -> Inventory:
        """Return the objects of this user's lab, whatever their owner, and all networks; see `Inventory.of_user`."""
        filters = {"label": [f"{LABEL_LAB}={lab}"]}
        containers = {}
        for label in (*filters["label"], f"{LABEL_PROJECT}={project_name(lab)}"):
            for each in self._quick.containers(all=True, filters={"label": [label]}):
                containers[each["Id"]] = _container(each)
        volumes = self._quick.volumes(filters=filters)["Volumes"] or []
        return Inventory(
            lab,
            tuple(containers.values()),
            tuple(Volume(each["Name"], each["Labels"] or {}) for each in volumes),
            tuple(self.networks()),
        ).of_user(state.owner())

    @mapped
    def networks(self) -> list[Network]:
        """Return all networks."""
        return [
            Network(
                each["Name"],
                each["Labels"] or {},
                tuple(pool["Subnet"] for pool in each["IPAM"]["Config"] or () if "Subnet" in pool),
                each.get("Id", ""),
            )
            for each in self._quick.networks()
        ]

    @mapped
    def claim(self, volume: str, labels: Mapping[str, str]) -> str:
        """Create a volume unless it exists, and return its owner by its label. Of several callers, one creates it."""
        created = self._quick.create_volume(volume, labels=dict(labels))
        return str((created["Labels"] or {}).get(LABEL_OWNER, ""))

    def _labels(self, *wanted: str) -> list[dict[str, str]]:
        """Return the labels of every container, network and volume that has the `wanted` labels."""
        filters = {"label": list(wanted)}
        labels: list[dict[str, str]] = [c["Labels"] for c in self._quick.containers(all=True, filters=filters)]
        labels += [n["Labels"] for n in self._quick.networks(filters=filters)]
        labels += [v["Labels"] or {} for v in self._quick.volumes(filters=filters)["Volumes"] or []]
        return labels

    @mapped
    def leftovers(self, lab: str, owner: str) -> list[str]:
        """Return the objects with this lab's and owner's labels: `container NAME`, `network NAME`, `volume NAME`."""
        wanted = {"label": [f"{LABEL_LAB}={lab}", f"{LABEL_OWNER}={owner}"]}
        objects = [f"container {c['Names'][0].lstrip('/')}" for c in self._quick.containers(all=True, filters=wanted)]
        objects += [f"network {n['Name']}" for n in self._quick.networks(filters=wanted)]
        objects += [f"volume {v['Name']}" for v in self._quick.volumes(filters=wanted)["Volumes"] or []]
        return objects

    @mapped
    def remove(self, thing: str) -> None:
        """Remove one of `leftovers`, by force. One that no longer exists is no error."""
        kind, name = thing.split(" ", 1)
        try:
            if kind == "container":
                self._api.remove_container(name, force=True, v=True)
            elif kind == "network":
                # Disconnect other containers from the network (an application under test, for example).
                for container in self._api.inspect_network(name)["Containers"] or {}:
                    self._api.disconnect_container_from_network(container, name, force=True)
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
        networks={
            name: network.get("NetworkID", "")
            for name, network in ((summary.get("NetworkSettings") or {}).get("Networks") or {}).items()
        },
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
