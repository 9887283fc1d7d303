"""A lab's containers, networks and volumes on an engine, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mailstack.model import LABEL_LAB, LABEL_OWNER, Network

RUNNING, PAUSED = "running", "paused"


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a lab, in any state."""

    name: str
    labels: Mapping[str, str]
    state: str = RUNNING  # or exited, paused, created, …
    image: str = ""  # the image's name at the creation of the container
    mounted: tuple[str, ...] = ()  # files and directories of the engine's host
    networks: Mapping[str, str] = field(default_factory=dict)  # name → id, of those that it is connected to

    @property
    def service(self) -> str:
        """Return the container's service in the compose files, or "" for a container that Compose did not create."""
        one_off = self.labels.get("com.docker.compose.oneoff") == "True"
        return "" if one_off else self.labels.get("com.docker.compose.service", "")

    @property
    def config_hash(self) -> str:
        """Return Compose's digest of the definition from which it created the container."""
        return self.labels.get("com.docker.compose.config-hash", "")


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a lab."""

    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Inventory:
    """All objects on an engine with a lab's label or of its Compose project, and all networks of the engine."""

    lab: str
    containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    networks: tuple[Network, ...] = ()

    def owners(self) -> set[str]:
        """Return the owners of the labs of this name. Objects without an owner's label are ignored."""
        labels = [each.labels for each in self._objects() if each.labels.get(LABEL_LAB) == self.lab]
        return {each[LABEL_OWNER] for each in labels if each.get(LABEL_OWNER)}

    def mounted(self, owner: str) -> set[str]:
        """Return the files of the engine's host that the containers of this owner's lab mount."""
        own = {LABEL_LAB: self.lab, LABEL_OWNER: owner}.items()
        return {path for each in self.containers if own <= each.labels.items() for path in each.mounted}

    def of(self, owner: str) -> list[str]:
        """Return the objects with this lab's and owner's labels: `container NAME`, `network NAME`, `volume NAME`."""
        own = {LABEL_LAB: self.lab, LABEL_OWNER: owner}.items()
        objects = [each for each in self._objects() if own <= each.labels.items()]
        return [f"{type(each).__name__.lower()} {each.name}" for each in objects]

    def service(self, name: str) -> Container | None:
        """Return the container of a service, or None."""
        return next((each for each in self.containers if each.service == name), None)

    def _objects(self) -> tuple[Container | Network | Volume, ...]:
        return (*self.containers, *self.networks, *self.volumes)
