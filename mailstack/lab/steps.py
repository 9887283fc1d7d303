"""The steps of a plan of `up` or `down`, each with its cause.

A step contains the data for its execution. `rows` returns it for people and for JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mailstack.model import Json
from mailstack.state import State


@dataclass(frozen=True, slots=True)
class Row:
    """A displayed step: its kind, the names of the objects that it concerns, and its cause."""

    step: str
    concerns: tuple[str, ...]
    cause: str

    def json(self) -> Json:
        """Return an element of `steps` in the document of `--dry-run --json`; see docs/json.md."""
        return {"step": self.step, "concerns": list(self.concerns), "cause": self.cause}


@dataclass(frozen=True)
class Step:
    """One step: its cause, and the names of the objects that it concerns."""

    kind: ClassVar[str]
    cause: str
    names: tuple[str, ...]

    def rows(self) -> tuple[Row, ...]:
        """Return the step for display."""
        return (Row(self.kind, self.names, self.cause),)


class MakeDirectory(Step):
    """Make the lab's private directory."""

    kind = "make directory"


@dataclass(frozen=True)
class Record(Step):
    """Save the state of the lab before anything is changed, and again when it is proven."""

    kind = "record"
    state: State


class ClaimName(Step):
    """Create the first volume of the lab, which claims the lab's name for one owner; see `claims.name_volume`."""

    kind = "claim name"


class WriteFiles(Step):
    """Write the files for the containers: secrets and tables."""

    kind = "write files"


class UndoChanges(Step):
    """Remove half-added accounts from the files, before services start. CleanUp removes the rest in the running lab."""

    kind = "undo interrupted changes"


class Unpause(Step):
    """Unpause containers, since Compose does not."""

    kind = "unpause containers"


class RemoveContainers(Step):
    """Remove containers that have lost a network, which Compose does not notice, so that it creates them anew."""

    kind = "remove containers"


class RemoveVolumes(Step):
    """Remove volumes with configuration that was changed by hand; `RemoveContainers` comes first."""

    kind = "remove volumes"


class CleanUp(Step):
    """Remove what interrupted commands left in the running lab, and their records."""

    kind = "clean up"


class ForwardPorts(Step):
    """Forward the lab's ports from this machine to its host."""

    kind = "forward ports"


class BuildImages(Step):
    """Build the images, or send them to the engine's host."""

    kind = "build images"


@dataclass(frozen=True)
class ComposeUp(Step):
    """Run Compose, to make containers, networks and volumes match the definition.

    `changes` are the expected changes, as rows: `create containers`, `start containers`, … Without any, Compose only
    compares each service with its container.
    """

    kind = "compare containers"
    changes: tuple[Row, ...] = ()
    anew: bool = False  # recreate every container

    def rows(self) -> tuple[Row, ...]:
        """Return the changes for display."""
        return self.changes or Step.rows(self)


class Move(Step):
    """Remove the started parts of a new lab, and choose other ports and subnets for it."""

    kind = "move"


class Restart(Step):
    """Restart services, so that they read their files again."""

    kind = "restart services"


@dataclass(frozen=True)
class Prove(Step):
    """Prove the lab with two mails, by submission and from the sender; see `readiness`."""

    kind = "prove"
    beside: bool  # begin while Compose starts the containers


class LogIn(Step):
    """Log in to the outside relay, from the sender's container."""

    kind = "log in to relay"


class ComposeDown(Step):
    """Remove the project with Compose: containers, networks and volumes."""

    kind = "compose down"


class RemoveObjects(Step):
    """Remove all objects with the labels of the lab and its owner, also those that appear meanwhile."""

    kind = "remove"

    def rows(self) -> tuple[Row, ...]:
        """Return the step for display; nothing when no such object exists yet."""
        return Step.rows(self) if self.names else ()


class RemoveDirectory(Step):
    """Remove a directory of the lab, with the secrets in it."""

    kind = "remove directory"


# What every `up` does, also of a lab that is as it should be.
_NO_CHANGES = frozenset(step.kind for step in (Record, ForwardPorts, ComposeUp, Prove, LogIn))


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a command on a lab, in order."""

    lab: str
    steps: tuple[Step, ...]
    why: str = ""  # the cause of the removal of a stale lab

    def rows(self) -> list[Row]:
        """Return all steps for display."""
        return [row for step in self.steps for row in step.rows()]

    def changes(self, repaired: Sequence[Row], started: Collection[str]) -> tuple[Row, ...]:
        """Return what was changed in a lab that was up: as planned, `repaired` after a proof, and found by Compose.

        `started` are the services that Compose started.
        """
        planned = [row for row in self.rows() if row.concerns and row.step not in _NO_CHANGES] + list(repaired)
        found = tuple(sorted(set(started) - {name for row in planned for name in row.concerns}))
        return (*planned, *([Row("recreate containers", found, "their definition changed")] if found else []))

    def json(self) -> Json:
        """Return the document of `--dry-run --json`; its shape is in docs/json.md."""
        return {"lab": self.lab, "steps": [row.json() for row in self.rows()]}


def grouped(action: str, causes: Mapping[str, str], names: Sequence[str]) -> list[Row]:
    """Return the rows of one kind of change, one for each cause; names without a cause are left out."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if name in causes:
            groups.setdefault(causes[name], []).append(name)
    return [Row(action, tuple(each), cause) for cause, each in groups.items()]
