"""A lab's containers, networks and volumes on an engine, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mailstack.engine.projects import in_project, project_name
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
    """The objects of a lab on an engine, and all networks of the engine."""

    lab: str
    containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    networks: tuple[Network, ...] = ()

    project: str = ""  # the lab's Compose project; that of this process's user by default

    def __post_init__(self) -> None:
        object.__setattr__(self, "project", self.project or project_name(self.lab))

    def of_user(self, owner: str) -> Inventory:
        """Return it without the containers and volumes of other users' labs of this name.

        What remains is in the lab's project, or has the label of this owner.
        """
        return replace(
            self,
            containers=tuple(each for each in self.containers if self._is_in_project(each) or self._is_of(each, owner)),
            volumes=tuple(each for each in self.volumes if self._is_in_project(each) or self._is_of(each, owner)),
        )

    def owners(self) -> set[str]:
        """Return the owners of the objects in the lab's project. Objects without an owner's label are ignored."""
        labels = [each.labels for each in self._objects() if self._is_in_project(each)]
        return {each[LABEL_OWNER] for each in labels if each.get(LABEL_LAB) == self.lab and each.get(LABEL_OWNER)}

    def astray(self, owner: str) -> list[str]:
        """Return the objects with this lab's and owner's labels that are not in the lab's project.

        Another user has set the same owner, or an earlier version of mailstack made them.
        """
        return [_thing(each) for each in self._objects() if self._is_of(each, owner) and not self._is_in_project(each)]

    def mounted(self, owner: str) -> set[str]:
        """Return the files of the engine's host that the containers of this owner's lab mount."""
        return {path for each in self.containers if self._is_of(each, owner) for path in each.mounted}

    def of(self, owner: str) -> list[str]:
        """Return the objects with this lab's and owner's labels: `container NAME`, `network NAME`, `volume NAME`."""
        return [_thing(each) for each in self._objects() if self._is_of(each, owner)]

    def service(self, name: str) -> Container | None:
        """Return the container of a service, or None."""
        return next((each for each in self.containers if each.service == name), None)

    def _objects(self) -> tuple[Container | Network | Volume, ...]:
        return (*self.containers, *self.networks, *self.volumes)

    def _is_in_project(self, each: Container | Network | Volume) -> bool:
        return in_project(self.project, each.name, each.labels)

    def _is_of(self, each: Container | Network | Volume, owner: str) -> bool:
        return {LABEL_LAB: self.lab, LABEL_OWNER: owner}.items() <= each.labels.items()


def _thing(each: Container | Network | Volume) -> str:
    return f"{type(each).__name__.lower()} {each.name}"
