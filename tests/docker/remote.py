"""A lab on another machine: a bare machine with an engine and SSH, commands on it, and what is left of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mailstack import state
from mailstack.definition import bundled
from mailstack.images import build
from mailstack.model import SERVICES, Deadline
from mailstack.storage import directories
from tests import forked
from tests.docker import nested


@contextlib.contextmanager
def bare(tmpfs: dict[str, str] | None = None) -> Iterator[nested.Machine]:
    """Yield a bare machine within `with`. Its engine has the lab's images, which the engine of this host must have."""
    _EARLIER.update(_connections())
    with nested.machine(state.owner(), image=nested.REMOTE, tmpfs=tmpfs) as made:
        tag = build.content_tag(bundled.stack())
        made.load([f"mailstack/{service}:{tag}" for service in SERVICES])
        yield made


def mailstack(
    machine: nested.Machine, *words: str | Path, host: str = "tester", code: int = 0, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command here with the machine as target; `text` is its standard input."""
    argv = [*words, *(["--host", host] if host else [])]
    done = forked.run_text(argv, {"HOME": str(machine.home)}, text)
    assert done.returncode == code, done.stderr[-3000:] + done.stdout[-1000:]
    return done


def answer(machine: nested.Machine, *words: str | Path, host: str = "tester") -> Any:
    """Run a command; return its JSON document."""
    return json.loads(mailstack(machine, *words, "--json", host=host).stdout)


def left(machine: nested.Machine, there: bool = True) -> list[str]:
    """Return what is left of any lab on the machine, and of its connection here, after its last lease is released.

    With `there=False`, only what is left of the connection.
    """
    deadline = Deadline.after(15)
    while (found := [*(_there(machine) if there else ()), *_here()]) and not deadline.passed():
        time.sleep(0.1)
    return found


def _there(machine: nested.Machine) -> list[str]:
    found = [each.name for each in machine.engine.containers.list(all=True, ignore_removed=True)]
    found += [each.name for each in machine.engine.volumes.list()]
    found += [each.name for each in machine.engine.networks.list() if each.name not in ("bridge", "host", "none")]
    found += machine.run("find", "/dev/shm", "/run/user", "/home", "-path", "*mailstack*").split()
    # What is there from the start is its image's, and the folder that it shares with this host.
    found += machine.run("find", "/tmp", "/var/tmp", "-mindepth", "1", "-not", "-path", "/tmp/nested-*").split()
    return found


# Of machines that were there before, whose connections were cut: what is kept of them is for the next command there.
_EARLIER: set[str] = set()


def _connections() -> set[str]:
    return {str(each) for each in directories.root().glob("@*")}


def _here() -> list[str]:
    return sorted(_connections() - _EARLIER)
