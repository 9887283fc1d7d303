"""The steps of a plan: what `up` or `down` will do to a lab, each with its cause.

A step has what carrying it out needs, and can be shown: `rows` gives it for people and for JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mailstack.model import Json, Relay
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


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do."""

    kind: ClassVar[str]
    cause: str

    def concerns(self) -> tuple[str, ...]:
        """The names of the things that it changes."""
        return ()

    def rows(self) -> tuple[Row, ...]:
        """The step as it is shown."""
        return (Row(self.kind, self.concerns(), self.cause),)


@dataclass(frozen=True, slots=True)
class MakeDirectory(Step):
    """Make the lab's private directory."""

    kind = "make directory"
    path: Path

    def concerns(self) -> tuple[str, ...]:
        return (str(self.path),)


@dataclass(frozen=True, slots=True)
class Record(Step):
    """Write down how the lab is brought up, before anything is changed; and again when it is proven."""

    kind = "record"
    state: State

    def concerns(self) -> tuple[str, ...]:
        return ("lab.json", "subnets.yaml")


@dataclass(frozen=True, slots=True)
class ClaimName(Step):
    """Make the first volume of the lab, by which the engine gives its name to one owner only."""

    kind = "claim name"
    volume: str
    labels: Mapping[str, str]

    def concerns(self) -> tuple[str, ...]:
        return (self.volume,)


@dataclass(frozen=True, slots=True)
class WriteFiles(Step):
    """Write the files that containers are handed: secrets and tables."""

    kind = "write files"
    names: tuple[str, ...]

    def concerns(self) -> tuple[str, ...]:
        return self.names


@dataclass(frozen=True, slots=True)
class ForwardPorts(Step):
    """Have the lab's ports of this machine lead to the host that the lab is on."""

    kind = "forward ports"
    ports: tuple[int, ...]

    def concerns(self) -> tuple[str, ...]:
        return tuple(f"127.0.0.1:{port}" for port in self.ports)


@dataclass(frozen=True, slots=True)
class BuildImages(Step):
    """Build the images, or send them to the engine's host."""

    kind = "build images"
    references: tuple[str, ...]

    def concerns(self) -> tuple[str, ...]:
        return self.references


@dataclass(frozen=True, slots=True)
class Change(Step):
    """One of the things that `docker compose up` will do: `create containers`, `start containers`, …"""

    action: str
    names: tuple[str, ...]

    def rows(self) -> tuple[Row, ...]:
        return (Row(self.action, self.names, self.cause),)


@dataclass(frozen=True, slots=True)
class ComposeUp(Step):
    """Have Compose bring containers, networks and volumes to the definition: `changes` is what that comes to.

    Compose itself compares each service with its container; without changes, that is all that it does.
    """

    kind = "compare containers"
    services: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    anew: bool = False  # make every container again

    def rows(self) -> tuple[Row, ...]:
        shown = [row for change in self.changes for row in change.rows()]
        return tuple(shown) or (Row(self.kind, self.services, self.cause),)


@dataclass(frozen=True, slots=True)
class Move(Step):
    """Take down what was begun of a new lab, and give it other ports and subnets."""

    kind = "move"
    lost: tuple[str, ...]  # the addresses and subnets that another process has taken
    subnets: tuple[str, ...] = ()  # the subnets among them

    def concerns(self) -> tuple[str, ...]:
        return self.lost


@dataclass(frozen=True, slots=True)
class Restart(Step):
    """Restart services, so that they read their files again."""

    kind = "restart services"
    services: tuple[str, ...]

    def concerns(self) -> tuple[str, ...]:
        return self.services


@dataclass(frozen=True, slots=True)
class Prove(Step):
    """Submit a mail with authentication, and read it over IMAP."""

    kind = "prove"
    sender: str
    recipient: str
    beside: bool = False  # begin while Compose starts the containers

    def concerns(self) -> tuple[str, ...]:
        return (self.sender, self.recipient)


@dataclass(frozen=True, slots=True)
class LogIn(Step):
    """Log in to the relay outside, from the sender's container."""

    kind = "log in to relay"
    relay: Relay

    def concerns(self) -> tuple[str, ...]:
        return (f"{self.relay.host}:{self.relay.port}",)


@dataclass(frozen=True, slots=True)
class ComposeDown(Step):
    """Have Compose remove the project: containers, networks and volumes."""

    kind = "compose down"
    things: tuple[str, ...]  # `container NAME`, …

    def concerns(self) -> tuple[str, ...]:
        return self.things


@dataclass(frozen=True, slots=True)
class RemoveThings(Step):
    """Remove everything with the lab's and its owner's labels, one by one, also what comes only now (`late`)."""

    kind = "remove"
    things: tuple[str, ...]
    late: frozenset[str] = frozenset()

    def rows(self) -> tuple[Row, ...]:
        return (Row(self.kind, self.things, self.cause),) if self.things else ()


@dataclass(frozen=True, slots=True)
class RemoveDirectory(Step):
    """Remove a directory of the lab, with the secrets in it."""

    kind = "remove directory"
    path: Path

    def concerns(self) -> tuple[str, ...]:
        return (str(self.path),)


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


def grouped(kind: str, causes: Mapping[str, str], names: Sequence[str]) -> list[Change]:
    """Changes of one kind: the names that have a cause, those with the same cause together."""
    found: dict[str, list[str]] = {}
    for name in names:
        if name in causes:
            found.setdefault(causes[name], []).append(name)
    return [Change(cause, kind, tuple(each)) for cause, each in found.items()]
