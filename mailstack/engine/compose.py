"""Docker Compose: find the binary, and build its command lines as values. Nothing here runs them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mailstack.errors import HostError
from mailstack.model import Command, Json
from mailstack.runner.local import Runner
from mailstack.secret import write_private
from mailstack.state import COMPOSE
from mailstack.storage import directories, json_file

# Needed for `!reset` and `!override` in relay.yaml (2.24), and for file secrets on read-only services.
OLDEST = (2, 24)

_PLUGIN_DIRECTORIES = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


def candidates() -> list[Path]:
    """Return the Compose binaries on this machine: Docker's plug-in first, then the one installed with mailstack."""
    home = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    directories_searched = [home / "cli-plugins", *map(Path, _PLUGIN_DIRECTORIES), Path(sys.executable).parent]
    binaries = [place / "docker-compose" for place in directories_searched]
    if on_path := shutil.which("docker-compose"):
        binaries.append(Path(on_path))
    return [path for path in binaries if os.access(path, os.X_OK)]


def version_of(runner: Runner, binary: Path) -> tuple[int, ...]:
    """Return the version of a Compose binary, or () when it prints none. Cached until the binary changes."""
    cache = directories.root() / COMPOSE
    status = binary.stat()
    key = f"{binary} {status.st_size} {status.st_mtime_ns}"
    versions = json_file.read(cache)
    if not isinstance(versions.get(key), list) or not all(isinstance(number, int) for number in versions[key]):
        output = runner.run(Command((str(binary), "version", "--short"))).stdout
        versions[key] = [int(number) for number in re.findall(r"\d+", output)[:3]]
        # Without a cache, or when it cannot be written, Compose is asked again next time.
        with contextlib.suppress(HostError):
            if directories.read(cache.parent):
                write_private(cache, json.dumps(versions))
    return tuple(versions[key])


def find(runner: Runner) -> Path:
    """Return the first Compose binary that is new enough. Raises HostError, which lists those that are too old."""
    old = []
    for binary in candidates():
        version = version_of(runner, binary)
        if version >= OLDEST:
            return binary
        old.append(f"{binary} is {'.'.join(map(str, version)) or 'of unknown version'}")
    needed = ".".join(map(str, OLDEST))
    raise HostError(
        f"Docker Compose {needed} or newer is needed; " + ("; ".join(old) or "none was found"),
        remedy="pip install 'mailstack[compose]', or install Docker's own Compose plug-in",
    )


# A line of `up`'s progress, one of many: “ Container mailstack-lab-postfix-1  Started”.
_STEP = re.compile(r" ?(?:Container|Network|Volume) \S+ +\S")
_CHANGED = re.compile(r" ?(Container|Network|Volume) (\S+) +(Creating|Created|Removed)")
_STARTED = re.compile(r" ?Container (\S+)-1 +Started")


def started_service(line: str, project: str) -> str:
    """Return the service of the project that this line of `up` reports as started, or "" for any other line."""
    match = _STARTED.match(line)
    return match[1].removeprefix(f"{project}-") if match and match[1].startswith(f"{project}-") else ""


def objects_in_creation(lines: Iterable[str], before: Iterable[str] = ()) -> frozenset[str]:
    """Return the objects that Compose is creating: it has reported neither their creation nor their removal.

    Each is `network NAME`, and so on. `before` are the objects that were being created before these `lines`.
    """
    objects = set(before)
    for match in filter(None, map(_CHANGED.match, lines)):
        thing = f"{match[1].lower()} {match[2]}"
        if match[3] == "Creating":
            objects.add(thing)
        else:
            objects.discard(thing)
    return frozenset(objects)


def without_progress(output: str) -> str:
    """Return the output of `up` without its progress lines."""
    return "\n".join(line for line in output.splitlines() if not _STEP.match(line))


class Compose:
    """Command lines for one Compose project."""

    def __init__(
        self,
        binary: Path,
        project: str,
        files: Sequence[Path],
        environment: Mapping[str, str],
        document: Json | None = None,
    ) -> None:
        """Take the project's files; `document` is the first of them, resolved earlier, so that it is not read again.

        Its extension fields (`x-…`), which only the controller reads, are left out: ten thousand accounts cost Compose
        half a second.
        """
        self._base: tuple[str, ...] = (str(binary), "-p", project)
        names = [str(file) for file in files]
        self._input: bytes | None = None
        if document is not None:
            self._base += ("--project-directory", str(files[0].parent))
            names[0] = "-"
            bare = {key: value for key, value in document.items() if not key.startswith("x-")}
            self._input = json.dumps(bare).encode()
        self._base += tuple(word for name in names for word in ("-f", name))
        # Clear the settings of the user's shell that would change the project.
        cleared = dict.fromkeys(("COMPOSE_PROFILES", "COMPOSE_ENV_FILES"), "")
        # Compose runs for a second or two: run Go's garbage collector less often than by default.
        quick = {"COMPOSE_PARALLEL_LIMIT": "-1", "GOGC": os.environ.get("GOGC", "400")}
        self._environment = {**cleared, **quick, **environment}

    def command(self, *words: str, environment: Mapping[str, str] | None = None) -> Command:
        """Return the command line `docker compose … WORDS` for this project."""
        return Command((*self._base, *words), {**self._environment, **(environment or {})}, self._input)

    def config(self, form: str = "json") -> Command:
        """Return the command that prints the resolved files."""
        return self.command("config", "--format", form)

    def hashes(self) -> Command:
        """Return the command that prints `SERVICE DIGEST` per service. Compose compares the digests to find changes."""
        return self.command("config", "--hash", "*")

    def build(self) -> Command:
        """Return the command that builds the images one after the other, so that their shared layer is built once."""
        return self.command("build", environment={"COMPOSE_PARALLEL_LIMIT": "1"})

    def up(self, *, anew: bool = False) -> Command:
        """Return the command that brings the project up with images that exist; `anew` recreates all containers.

        It prints its progress to standard error; see `started` and `complaints`.
        """
        options = ["--force-recreate"] if anew else []
        return self.command(
            "--progress", "plain", "up", "-d", "--no-build", "--pull", "never", "--remove-orphans", *options
        )

    def restart(self, services: Sequence[str]) -> Command:
        """Return the command that restarts services, so that they read their configuration again."""
        return self.command("--progress", "quiet", "restart", "--no-deps", *services)

    def down(self) -> Command:
        """Return the command that removes containers, networks and volumes.

        Servers get no time for a clean shutdown, since their volumes are removed too. Dovecot's would take a second
        while Postfix is still connected to it.
        """
        return self.command("--progress", "quiet", "down", "--volumes", "--remove-orphans", "--timeout", "0")

    def shell(self, service: str, words: Sequence[str], user: str = "") -> Command:
        """Return the command that runs a program in a service on this terminal, as a user in their home, or as root."""
        as_user = ["--user", user, "--workdir", f"/home/{user}"] if user else []
        return self.command("exec", *as_user, *([] if sys.stdin.isatty() else ["-T"]), service, *words)
