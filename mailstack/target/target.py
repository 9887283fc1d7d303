"""The Docker host that a command works on: a value that is created once, and passed along.

`LocalTarget` is an engine that this machine reaches itself: its own, that of a Docker context, or one at DOCKER_HOST.
`over_ssh.SshTarget` is a host over SSH with its open connection. `choice.choose` creates the target that the user has
chosen.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mailstack.errors import EngineError, HostError, MailstackError
from mailstack.network import ports
from mailstack.runner.local import CommandRunner, Local
from mailstack.storage import directories, json_file
from mailstack.text import hint

# The environment variable that names a host over SSH when no option does.
VARIABLE = "MAILSTACK_HOST"

DEFAULT_URL = "unix:///var/run/docker.sock"


class Target(Protocol):
    """A Docker host. The defaults here are those of an engine that this machine reaches itself.

    All methods that reach another machine raise HostError when it is unreachable.
    """

    @property
    def url(self) -> str:
        """The engine's address on this machine. Raises EngineError when the Docker context is unknown."""

    @property
    def host(self) -> str:
        """The host over SSH, as the user types it; "" when this machine reaches the engine itself."""
        return ""

    @property
    def where(self) -> str:
        """The engine's location for messages: `at unix:///…`, `on box`."""
        return f"on {self.host}" if self.host else f"at {self.url}"

    @property
    def user(self) -> str:
        """The user who needs access to the engine, for messages."""
        return "this user"

    @property
    def uses_sudo(self) -> bool:
        """Whether the engine is reached by sudo, because the user is not in its group."""
        return False

    @property
    def description(self) -> str:
        """The engine's address on its own machine, and how it is reached, for messages."""
        return self.url

    @property
    def secrets_directory(self) -> str:
        """The directory for the labs' files on the engine's machine."""
        return str(directories.root())

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables that make a child process work on the same target."""
        return {"DOCKER_HOST": self.url, VARIABLE: self.host}

    @property
    def runner(self) -> CommandRunner:
        """The runner for commands on the engine's machine, as far as it can be reached: local, or over SSH."""
        return Local()

    @property
    def own_url(self) -> str:
        """The address of this machine's own engine when the target is another machine; else ""."""
        return ""

    @property
    def shares_kernel(self) -> bool:
        """Whether the engine runs on this machine's kernel, and its networks have routes here."""
        return not self.host and self.url.startswith("unix://")

    @property
    def clock_ahead(self) -> float:
        """The seconds by which the target's clock is ahead of this machine's, as of the last `look`."""
        return 0.0

    def line(self, *words: str, lab: str = "") -> str:
        """Return a command line of mailstack for the user to type, for this target; see `hint.line`."""
        return hint.line(*words, lab=lab, host=self.host)

    def look(self) -> None:
        """Check that the target is still reachable."""
        return

    def root_cause(self, error: MailstackError) -> MailstackError:
        """Return the cause of an error: when a host is unreachable, everything fails because of that."""
        return error

    def no_answer_error(self, reason: str) -> HostError:
        """Return the error for an engine that did not answer; `reason` is the library's message."""
        if "timed out" in reason and "connect timeout" not in reason:
            return EngineError(
                f"the Docker engine {self.where} accepts connections, but does not answer",
                remedy="see its log, or restart it",
            )
        if "Permission denied" in reason:
            return denied(self)
        return EngineError(
            f"no Docker engine answers {self.where}",
            remedy=f"start it, or run `{self.line('provision')}`; `{self.line('doctor')}` shows what else is missing",
        )

    def files_of(self, files: Path) -> str:
        """Return the directory where the engine finds a lab's files for its containers."""
        return str(files)

    def hand_over(self, files: Path, names: Collection[str] | None = None) -> None:
        """Make the lab's files on the target the same as here: all of them, or only those with these names."""
        return

    def forget(self, lab: str, ports: Collection[int]) -> None:
        """Remove a lab's files from the target, and stop forwarding its ports."""
        return

    def forward(self, ports: Collection[int]) -> list[int]:
        """Forward these ports of this machine to the target. Return those that are in use here."""
        return []  # the engine publishes them on this machine

    def close(self, ports: Collection[int]) -> None:
        """Stop forwarding these ports."""
        return

    def seed(self, lab: str) -> str:
        """Return the text that determines where the search for a lab's free ports begins."""
        # Labs of one name on several hosts use ports of this machine, too: they begin at different ones.
        return f"{self.host} {lab}".lstrip()

    def listening(self) -> Collection[int]:
        """Return the ports of another machine's loopback that were in use at the last `look`."""
        return ()

    def port_test(self) -> Callable[[int], bool]:
        """Query the target's ports now. Return a function that tells whether a port is free."""
        return ports.is_free

    def free_bytes(self, path: Path) -> int:
        """Return the free bytes of the file system with this path, or with its nearest parent that the user can see."""
        while not path.exists():
            path = path.parent
        return shutil.disk_usage(path).free

    def matches_endpoint(self, endpoint: str) -> bool:
        """Return whether a recorded endpoint is this target's, in any runtime directory."""
        return endpoint.endswith(self.url)

    def legacy_directory(self, place: Path) -> Path:
        """Return the directory of this target's labs in a runtime directory of a version without markers."""
        return place


def denied(target: Target) -> EngineError:
    """Return the error for a user who may not use the engine."""
    return EngineError(
        f"{target.user} has no permission to use the Docker engine {target.where}",
        remedy="add the user to the group `docker` and log in again, or use sudo",
    )


@dataclass(frozen=True, slots=True)
class LocalTarget(Target):
    """An engine that this machine reaches itself."""

    address: str = DEFAULT_URL
    unknown: str = ""  # the name of a Docker context that does not exist

    @property
    def url(self) -> str:
        """See Target."""
        if self.unknown:
            raise EngineError(f"the Docker context “{self.unknown}” is not known", remedy="see `docker context ls`")
        return self.address


def local(environment: Mapping[str, str], context: str = "") -> LocalTarget:
    """Return the engine that Docker's own command would choose; its address may be one over SSH."""
    if not context and (url := environment.get("DOCKER_HOST")):
        return LocalTarget(url)
    config = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker")
    name = context or environment.get("DOCKER_CONTEXT", "")
    name = name or json_file.read(config / "config.json", own=False).get("currentContext", "")
    if not name or name == "default":
        return LocalTarget()
    for meta in (config / "contexts" / "meta").glob("*/meta.json"):
        found = json_file.read(meta, own=False)
        if found.get("Name") == name:
            with contextlib.suppress(KeyError, TypeError):
                return LocalTarget(str(found["Endpoints"]["docker"]["Host"]))
    return LocalTarget(unknown=name)
