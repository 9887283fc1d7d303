"""Run a wrong command, and check its messages and what is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailstack.cli import main
from mailstack.model import Deadline
from tests import forked

MAILSTACK = str(Path(sys.executable).parent / "mailstack")
# An overlay that Compose accepts and Dovecot does not.
BROKEN = "x-mailstack:\n  settings:\n    dovecot: |\n      no_such_setting = yes\n"
OVERLAYS = Path(__file__).parent.parent / "data" / "overlays"


@dataclass(frozen=True)
class Outcome:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def messages(self) -> list[str]:
        """Return the lines that report an error, without progress and explanations."""
        return [line for line in self.err.splitlines() if line.startswith(("mailstack: ", "Error: "))]

    @property
    def rest(self) -> list[str]:
        """Return unexpected lines: neither a message, nor its explanation, nor the usage, nor progress."""
        known = r"(mailstack: |Error: |Usage: |Try '|  |\t)|.* …$|\s*$"
        return [line for line in self.err.splitlines() if not re.match(known, line)]


def run_here(argv: Sequence[str], capfd: pytest.CaptureFixture[str]) -> Outcome:
    """Run the command in this process, as its entry point would."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    given, sys.argv = sys.argv, ["mailstack", *argv]
    capfd.readouterr()
    try:
        main.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = given
        for number, handler in before.items():
            signal.signal(number, handler)
    out, err = capfd.readouterr()
    return Outcome(code if isinstance(code, int) else -1, out, err)


def run(argv: Sequence[str], environment: Mapping[str, str] | None = None, stdin: bytes = b"") -> Outcome:
    """Run the command in a separate process."""
    done = forked.run(argv, environment, stdin)
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


def read_up_to(says: str, process: subprocess.Popen[str]) -> str:
    """Return what a process writes to standard error, up to the line that contains `says`."""
    assert process.stderr
    said = ""
    while says not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


class Traces:
    """Everything that exists of an owner's labs: on the engine, and in the runtime directory."""

    def __init__(self, owner: str, directory: Path) -> None:
        import docker

        self._api = docker.APIClient(version="auto")
        self.owner = owner
        self.directory = directory

    def engine(self) -> set[str]:
        """Return containers, networks and volumes with the owner's label."""
        wanted = {"label": [f"mailstack.owner={self.owner}"]}
        return (
            {f"container {found['Names'][0]}" for found in self._api.containers(all=True, filters=wanted)}
            | {f"network {found['Name']}" for found in self._api.networks(filters=wanted)}
            | {f"volume {found['Name']}" for found in self._api.volumes(filters=wanted)["Volumes"] or []}
        )

    def files(self) -> set[str]:
        """Return files and directories, except the cache of which Compose was found."""
        found = {  # `walk` does not mind what goes while it looks
            os.path.relpath(f"{place}/{name}", self.directory)
            for place, directories, names in os.walk(self.directory)
            for name in (*directories, *names)
        }
        return found - {"compose.json"}

    def all(self) -> set[str]:
        """Return the traces on the engine and in the runtime directory."""
        return self.engine() | self.files()

    def remove(self) -> None:
        """Remove all labs of the owner, where anything is left of one."""
        if self.all():
            environment = {"MAILSTACK_OWNER": self.owner, "MAILSTACK_RUNTIME_DIR": str(self.directory)}
            run(["down", "--all"], environment)

    def containers(self) -> dict[str, str]:
        """Return the id of each container with its start time."""
        names = [thing.partition("/")[2] for thing in self.engine() if thing.startswith("container ")]
        found = [self._api.inspect_container(name) for name in sorted(names)]
        return {each["Id"]: each["State"]["StartedAt"] for each in found}

    def processes(self) -> dict[int, str]:
        """Return the owner's running processes by process id, for example a Compose whose `up` was killed."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"MAILSTACK_OWNER={self.owner}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found


def until(done: Callable[[], bool], seconds: float = 15.0, *, every: float = 0.1) -> bool:
    """Poll until `done` is true, at most `seconds`; return whether it is. For changes that send no event.

    To ask the engine keeps it from what is waited for: `every` is shorter only where the moment matters.
    """
    deadline = Deadline.after(seconds)
    while not done():
        if deadline.passed():
            return False
        time.sleep(every)
    return True


@contextlib.contextmanager
def alone(stem: str) -> Iterator[Traces]:
    """Yield a new owner with a separate runtime directory; remove everything that is left at exit."""
    owner = f"{stem}-{secrets.token_hex(4)}"
    directory = Path(f"/dev/shm/mailstack-{owner}")
    directory.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAILSTACK_RUNTIME_DIR", str(directory))
        patch.setenv("MAILSTACK_OWNER", owner)
        for name in ("DOCKER_CONTEXT", "MAILSTACK_NAME"):
            patch.delenv(name, raising=False)
        try:
            yield Traces(owner, directory)
        finally:
            Traces(owner, directory).remove()
            shutil.rmtree(directory)


@dataclass(frozen=True)
class Overlay:
    """An overlay with a mistake, and the expected message."""

    title: str
    says: str
    text: str
    place: str  # line:column


def overlays(name: str) -> list[Overlay]:
    """Return the overlays in a file of tests/data/overlays; yaml.txt describes the format."""
    found = []
    for part in (OVERLAYS / f"{name}.txt").read_text(encoding="utf-8").split("\n### ")[1:]:
        title, says, body = part.split("\n", 2)
        body = body.replace("⇥", "\t").rstrip("\n") + "\n"
        before, mark, after = body.partition("◆")
        assert mark and says.startswith("! "), f"{name}.txt: {title}"
        lines = before.split("\n")
        found.append(Overlay(title, says[2:], before + after, f"{len(lines)}:{len(lines[-1]) + 1}"))
    return found


def listen(path: Path) -> socket.socket:
    """Listen on a Unix socket."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server
