"""Observe a lab and plan its removal. Apart from the plan of `up`, whose modules are slow to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mailstack import state
from mailstack.engine import projects
from mailstack.engine.inventory import Inventory
from mailstack.lab import elsewhere
from mailstack.lab.steps import ComposeDown, Plan, RemoveDirectory, RemoveObjects, Step
from mailstack.lab.tools import Tools
from mailstack.state import LabDirectory, State


@dataclass(frozen=True, slots=True)
class Remains:
    """The present parts of a lab that is to be removed."""

    name: str
    path: Path
    made: bool  # whether its directory exists
    state: State | None
    inventory: Inventory
    elsewhere: tuple[Path, ...] = ()
    late: frozenset[str] = frozenset()  # objects that the engine may still be creating

    @property
    def any(self) -> bool:
        """Whether any part of the lab is this user's."""
        return self.made or bool(self.inventory.of(state.owner()))


def observe_remains(tools: Tools, directory: LabDirectory, late: frozenset[str] = frozenset()) -> Remains:
    """Find the parts of a lab, by its labels and its directory. Raises EngineError."""
    inventory = tools.engine.inventory(directory.name)
    return Remains(
        directory.name,
        directory.path,
        directory.is_made(),
        directory.load(),
        inventory,
        tuple(elsewhere.find(tools.target, inventory, directory)),
        late,
    )


def plan_down(seen: Remains, owner: str) -> Plan:
    """Return the plan of `down`. Compose ignores owners: it is used only when every part has this owner."""
    steps: list[Step] = []
    objects = seen.inventory.of(owner)
    project = projects.project_name(seen.name)
    if seen.inventory.owners() == {owner}:
        project_objects = [each for each in objects if each.split(" ")[1].startswith(f"{project}_")]
        by_compose = {f"container {each.name}" for each in seen.inventory.containers if each.service}
        by_compose -= set(seen.inventory.astray(owner))
        by_project = [each for each in objects if each in by_compose or each in project_objects]
        steps.append(ComposeDown("they are the lab's project", tuple(by_project)))
        objects = [each for each in objects if each not in by_project]
    steps.append(RemoveObjects("they have the labels of the lab and its owner", tuple(objects)))
    if seen.made:
        steps.append(RemoveDirectory("the lab's secrets are in it", (str(seen.path),)))
    steps += [RemoveDirectory("files of the lab are in it, too", (str(path),)) for path in seen.elsewhere]
    return Plan(seen.name, tuple(steps))
