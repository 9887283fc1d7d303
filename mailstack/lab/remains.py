"""Observe and plan the removal of a lab; apart from the plans of `up`, whose modules take long to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mailstack import state
from mailstack.engine import compose
from mailstack.engine.inventory import Inventory
from mailstack.lab import elsewhere
from mailstack.lab.steps import ComposeDown, Plan, RemoveDirectory, RemoveThings, Step
from mailstack.lab.tools import Tools
from mailstack.state import LabDirectory, State


@dataclass(frozen=True, slots=True)
class Remains:
    """What there is of a lab that is to be removed."""

    name: str
    path: Path
    made: bool  # whether its directory is there
    state: State | None
    inventory: Inventory
    elsewhere: tuple[Path, ...] = ()
    late: frozenset[str] = frozenset()  # things that the engine may still be making

    @property
    def any(self) -> bool:
        """Whether there is anything of this user's."""
        return self.made or state.owner() in self.inventory.owners()


def observe_remains(tools: Tools, directory: LabDirectory, late: frozenset[str] = frozenset()) -> Remains:
    """Look at what there is of a lab, by its labels and its directory. Raises EngineError."""
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
    """The steps of `down`. Compose does not know owners: it is called only where all that there is is one owner's."""
    steps: list[Step] = []
    things = seen.inventory.of(owner)
    project = compose.project_name(seen.name)
    if seen.inventory.owners() == {owner}:
        compose_things = [each for each in things if each.split(" ")[1].startswith(f"{project}_")]
        by_compose = {f"container {each.name}" for each in seen.inventory.containers if each.service}
        taken = [each for each in things if each in by_compose or each in compose_things]
        steps.append(ComposeDown("they are the lab's project", tuple(taken)))
        things = [each for each in things if each not in taken]
    steps.append(RemoveThings("they have the labels of the lab and its owner", tuple(things)))
    if seen.made:
        steps.append(RemoveDirectory("the lab's secrets are in it", (str(seen.path),)))
    steps += [RemoveDirectory("files of the lab are in it, too", (str(path),)) for path in seen.elsewhere]
    return Plan(seen.name, tuple(steps))
