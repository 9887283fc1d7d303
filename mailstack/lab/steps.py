"""The steps of a plan: what `up` or `down` will do to a lab, each with its cause.

A step has what carrying it out needs, and can be shown: `rows` gives it for people and for JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mailstack.model import Json
from mailstack.state import State


@dataclass(frozen=True, slots=True)
class Row:
    """A step as it is shown: its kind, the names of the things that it concerns, and its cause."""

    step: str
    concerns: tuple[str, ...]
    cause: str

    def json(self) -> Json:
        """An element of `steps` in the document of `--dry-run --json`; see docs/json.md."""
        return {"step": self.step, "concerns": list(self.concerns), "cause": self.cause}


@dataclass(frozen=True)
class Step:
    """One thing to do: why, and the names of the things that it concerns."""

    kind: ClassVar[str]
    cause: str
    names: tuple[str, ...]

    def rows(self) -> tuple[Row, ...]:
        """The step as it is shown."""
        return (Row(self.kind, self.names, self.cause),)


class MakeDirectory(Step):
    """Make the lab's private directory."""

    kind = "make directory"


@dataclass(frozen=True)
class Record(Step):
    """Write down how the lab is brought up, before anything is changed; and again when it is proven."""

    kind = "record"
    state: State


class ClaimName(Step):
    """Make the first volume of the lab, by which the engine gives its name to one owner only."""

    kind = "claim name"


class WriteFiles(Step):
    """Write the files that containers are handed: secrets and tables."""

    kind = "write files"


class ForwardPorts(Step):
    """Have the lab's ports of this machine lead to the host that the lab is on."""

    kind = "forward ports"


class BuildImages(Step):
    """Build the images, or send them to the engine's host."""

    kind = "build images"


@dataclass(frozen=True)
class ComposeUp(Step):
    """Have Compose bring containers, networks and volumes to the definition.

    `changes` is what that comes to, as rows: `create containers`, `start containers`, …

    Compose itself compares each service with its container; without changes, that is all that it does.
    """

    kind = "compare containers"
    changes: tuple[Row, ...] = ()
    anew: bool = False  # make every container again

    def rows(self) -> tuple[Row, ...]:
        """The changes as they are shown."""
        return self.changes or Step.rows(self)


class Move(Step):
    """Take down what was begun of a new lab, and give it other ports and subnets."""

    kind = "move"


class Restart(Step):
    """Restart services, so that they read their files again."""

    kind = "restart services"


@dataclass(frozen=True)
class Prove(Step):
    """Submit a mail with authentication, and read it over IMAP."""

    kind = "prove"
    beside: bool  # begin while Compose starts the containers


class LogIn(Step):
    """Log in to the relay outside, from the sender's container."""

    kind = "log in to relay"


class ComposeDown(Step):
    """Have Compose remove the project: containers, networks and volumes."""

    kind = "compose down"


class RemoveThings(Step):
    """Remove everything with the lab's and its owner's labels, one by one, also what comes only now."""

    kind = "remove"

    def rows(self) -> tuple[Row, ...]:
        """The step as it is shown: not where there is nothing yet."""
        return Step.rows(self) if self.names else ()


class RemoveDirectory(Step):
    """Remove a directory of the lab, with the secrets in it."""

    kind = "remove directory"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command will do to a lab, in order."""

    lab: str
    steps: tuple[Step, ...]

    def rows(self) -> list[Row]:
        """Every step as it is shown."""
        return [row for step in self.steps for row in step.rows()]

    def json(self) -> Json:
        """The document of `--dry-run --json`; its shape is in docs/json.md."""
        return {"lab": self.lab, "steps": [row.json() for row in self.rows()]}


def grouped(action: str, causes: Mapping[str, str], names: Sequence[str]) -> list[Row]:
    """Changes of one kind: the names that have a cause, those with the same cause together."""
    found: dict[str, list[str]] = {}
    for name in names:
        if name in causes:
            found.setdefault(causes[name], []).append(name)
    return [Row(action, tuple(each), cause) for cause, each in found.items()]
