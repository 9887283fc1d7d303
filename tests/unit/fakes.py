"""Fakes of the outside world: a runner made from a function, a target that records, an engine of values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mailstack.engine.engine import Engine
from mailstack.engine.inventory import Container, Inventory, Volume
from mailstack.errors import EngineError, HostError, MailstackError
from mailstack.model import Command, Deadline, Network, Result, ServiceState
from mailstack.roles import Role
from mailstack.runner.local import LineSink
from mailstack.text import hint

OK = Result(0, "", "")


class FakeRunner:
    """A runner that records its commands. A function answers them, and may raise."""

    def __init__(
        self,
        answer: Callable[[Command], Result] = lambda command: OK,
        *,
        ended: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._answer = answer
        self._ended = ended
        self.commands: list[Command] = []
        self.detached: list[tuple[Command, Path]] = []
        self.released: list[Command] = []

    @property
    def lines(self) -> list[str]:
        """Return the commands, each as one line."""
        return [" ".join(command.argv) for command in self.commands]

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Answer `command`, line by line if requested."""
        self.commands.append(command)
        result = self._answer(command)
        if on_line:
            for line in result.stderr.splitlines():
                on_line(line)
        return result

    def holding(self, *descriptors: int) -> FakeRunner:
        """Return the runner itself: it starts nothing that could keep files open."""
        return self

    def attach(self, command: Command) -> int:
        """Answer `command` with its exit code."""
        return self.run(command).code

    def detach(self, command: Command, log: Path) -> Callable[[], int | None]:
        """Record the start of `command`; return the given function for its exit code."""
        self.detached.append((command, log))
        return self._ended

    def release(self, command: Command, *, stdin: int | None = None) -> None:
        """Record that `command` was released."""
        self.released.append(command)


@dataclass
class FakeTarget:
    """A target that connects to nothing, and records the calls."""

    host: str = ""
    url: str = "unix:///nowhere/docker.sock"
    own_url: str = ""
    user: str = "somebody"
    uses_sudo: bool = False
    shares_kernel: bool = False
    clock_ahead: float = 0.0
    secrets_directory: str = "/dev/shm/fake"
    runner: FakeRunner = field(default_factory=FakeRunner)
    taken: tuple[int, ...] = ()  # ports of this machine that cannot be forwarded
    busy: tuple[int, ...] = ()  # ports of the target in use
    gone: HostError | None = None  # the error of each look
    free: int = 1 << 40
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def where(self) -> str:
        return f"on {self.host}" if self.host else f"at {self.url}"

    @property
    def description(self) -> str:
        return self.where

    @property
    def environment(self) -> Mapping[str, str]:
        return {"DOCKER_HOST": self.url, "MAILSTACK_HOST": self.host}

    def line(self, *words: str, lab: str = "") -> str:
        return hint.line(*words, lab=lab, host=self.host)

    def look(self) -> None:
        if self.gone:
            raise self.gone

    def root_cause(self, error: MailstackError) -> MailstackError:
        return self.gone or error

    def no_answer_error(self, reason: str) -> HostError:
        return EngineError(f"no Docker engine answers {self.where}", details=reason)

    def files_of(self, files: Path) -> str:
        return f"/there/{files.parent.name}/files"

    def hand_over(self, files: Path, names: Collection[str] | None = None) -> None:
        self.calls.append(("hand_over", None if names is None else sorted(names)))

    def forget(self, lab: str, ports: Collection[int]) -> None:
        self.calls.append(("forget", lab, sorted(ports)))

    def forward(self, ports: Collection[int]) -> list[int]:
        self.calls.append(("forward", sorted(ports)))
        return sorted(set(ports) & set(self.taken))

    def close(self, ports: Collection[int]) -> None:
        self.calls.append(("close", sorted(ports)))

    def seed(self, lab: str) -> str:
        return f"{self.host} {lab}".strip()

    def listening(self) -> Collection[int]:
        return self.busy

    def port_test(self) -> Callable[[int], bool]:
        return lambda port: port not in self.busy

    def free_bytes(self, path: Path) -> int:
        return self.free

    def matches_endpoint(self, endpoint: str) -> bool:
        return endpoint.endswith(self.url)

    def legacy_directory(self, place: Path) -> Path:
        return place


class FakeEngine(Engine):
    """An engine with given answers. With `silent`, it raises that error instead."""

    identity = "AN-ENGINE"

    def __init__(self, target: FakeTarget | None = None, *, silent: EngineError | None = None) -> None:
        super().__init__(target or FakeTarget())
        self.silent = silent
        self.everything: dict[str, dict[str, str]] = {}  # `container NAME`, … → its labels
        self.states: dict[str, list[ServiceState]] = {}  # project → its services
        self.printed: dict[str, str] = {}  # container → its log
        self.held: set[str] = set()  # images

    def _answers(self) -> None:
        if self.silent:
            raise self.silent

    def version(self) -> dict[str, Any]:
        self._answers()
        return {"Version": "28.0.0"}

    def info(self) -> dict[str, Any]:
        self._answers()
        return {"ID": self.identity, "ServerVersion": "28.0.0", "DockerRootDir": "/var/lib/docker"}

    def services(self, project: str, name: str = "", *, role: Role | None = None) -> list[ServiceState]:
        self._answers()
        found = [state for state in self.states.get(project, []) if name in ("", state.name)]
        return [state for state in found if role is None or (state.role and state.role.is_a(role))]

    def execute(
        self, container: str, argv: Sequence[str], *, user: str = "", input: bytes | Iterable[bytes] | None = None
    ) -> Result:
        self._answers()
        return Result(0, "", "")

    def logs(self, container: str, **_: Any) -> str:
        self._answers()
        return self.printed.get(container, "")

    def _image(self, reference: str) -> dict[str, Any]:
        self._answers()
        return {"Id": f"sha256:{reference}"} if reference in self.held else {}

    def networks(self) -> list[Network]:
        self._answers()
        return [
            Network(thing.split(" ")[1], labels, ())
            for thing, labels in self.everything.items()
            if thing.startswith("network ")
        ]

    def inventory(self, lab: str) -> Inventory:
        self._answers()
        things = {thing: labels for thing, labels in self.everything.items() if labels.get("mailstack.lab") == lab}
        named = [(thing.split(" ")[0], thing.split(" ")[1], labels) for thing, labels in things.items()]
        return Inventory(
            lab,
            tuple(Container(name, labels) for kind, name, labels in named if kind == "container"),
            tuple(Volume(name, labels) for kind, name, labels in named if kind == "volume"),
            tuple(self.networks()),
        )

    def _labels(self, *wanted: str) -> list[dict[str, str]]:
        self._answers()
        return [
            labels
            for labels in self.everything.values()
            if all(labels.get(key) == value if eq else key in labels for key, eq, value in map(_parts, wanted))
        ]

    def leftovers(self, lab: str, owner: str) -> list[str]:
        labels = self._labels(f"mailstack.lab={lab}", f"mailstack.owner={owner}")
        return [thing for thing, found in self.everything.items() if found in labels]

    def remove(self, thing: str) -> None:
        self._answers()
        self.everything.pop(thing, None)


def _parts(wanted: str) -> tuple[str, str, str]:
    return wanted.partition("=")
