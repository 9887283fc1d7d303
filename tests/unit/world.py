"""A lab's world in memory: an engine, Compose, a directory, and helpers for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mailstack.errors import DeadlinePassed
from mailstack.lab import readiness
from mailstack.lab import up as lab
from mailstack.lab.running import RunningLab
from mailstack.lab.tools import Tools
from mailstack.lab.up import Request
from mailstack.model import SERVICES, Command, Deadline, Result
from mailstack.roles import Role
from mailstack.state import LabDirectory
from tests.unit.fake_engine import MemoryApi, MemoryCompose, engine
from tests.unit.fakes import FakeRunner
from tests.unit.homes import home

NAME = "mine"
PROJECT = f"mailstack-{NAME}"
CONTAINERS = {f"{PROJECT}-{service}-1" for service in SERVICES}
WHOLE = CONTAINERS | {f"{PROJECT}_{thing}" for thing in ("mail", "edge", "mailboxes", "queue")}


MINE = Request(NAME)


class World:
    """An engine, a Compose and a directory; the messages of `up`, and the ports of each proven lab."""

    def __init__(self, base: Path, api: MemoryApi | None = None) -> None:
        self.api = api or MemoryApi()
        self.compose = MemoryCompose(self.api)
        self.runner = FakeRunner(self._answer)
        self.said: list[str] = []
        self.proved: list[dict[str, int]] = []  # the ports of each lab that was proven
        self.proof: Callable[[], None] = lambda: None  # what happens while the mail is on its way
        self.on: dict[str, Callable[[], None]] = {}  # verb of Compose → what happens before it
        self.home = home(base)
        self.directory = LabDirectory(self.home, NAME)
        self.relay: Callable[[], None] = lambda: None  # the same for the mail from the sender
        self.tools = Tools(
            engine(self.api),
            self.runner,
            self.home,
            self.said.append,
            transaction=self._transaction,
            relayed=self._relayed,
        )

    def up(self, request: Request = MINE) -> lab.Report:
        return lab.up(self.tools.engine, request, self.said.append, self.tools)

    def steps(self, request: Request = MINE) -> list[tuple[str, tuple[str, ...], str]]:
        """Return the output of `up --dry-run`: steps, names, causes."""
        rows = lab.dry_run(self.tools.engine, request, self.said.append, self.tools).rows()
        return [(row.step, row.concerns, row.cause) for row in rows]

    def verbs(self) -> list[str]:
        """Return the commands of Compose that were called, in order."""
        words = ("config", "up", "down", "restart", "build")
        return [word for command in self.runner.commands for word in command.argv if word in words]

    def files(self) -> set[str]:
        """Return files and directories below the home's root."""
        return {str(path.relative_to(self.home.root.parent)) for path in self.home.root.parent.rglob("*")} - _NOISE

    def _answer(self, command: Command) -> Result:
        for verb, happens in self.on.items():
            if verb in command.argv:
                happens()
        return self.compose(command)

    def _transaction(
        self, running: RunningLab, deadline: Deadline, dead: Callable[[], bool], started: Callable[[Role], None]
    ) -> tuple[str, float]:
        started(Role.STORE)
        if deadline.passed():
            raise DeadlinePassed("cancelled")
        self.proof()
        self.proved.append({name: endpoint.port for name, endpoint in running.endpoints.items()})
        return "<1@example.com>", 80.0

    def _relayed(
        self, running: RunningLab, deadline: Deadline, dead: Callable[[], bool], started: Callable[[Role], None]
    ) -> tuple[str, float]:
        readiness.sender(running, deadline, started)
        self.relay()
        return "<2@example.com>", 90.0


_NOISE = {"docker", "docker/cli-plugins", "docker/cli-plugins/docker-compose"}


def tag() -> str:
    """Return the tag of the images that `up` needs."""
    from mailstack.definition import bundled
    from mailstack.images import build

    return build.content_tag(bundled.stack())
