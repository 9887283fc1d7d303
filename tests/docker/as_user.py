"""Run commands as another user: one process of each user imports mailstack, and forks for every case."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USER = 61234  # nobody has to know this number
SECONDS = 180

# Reads a case per line, and answers it with a line. Each case has a process of its own, in which its commands run one
# after the other, as `mailstack` would run them.
SERVER = """
import contextlib, importlib, io, json, os, pkgutil, signal, sys
import docker, rich.console, rich.table, rich.text, yaml
import mailstack
from mailstack.cli import main as cli
for module in pkgutil.walk_packages(mailstack.__path__, "mailstack."):
    if "plugin" not in module.name and "__main__" not in module.name:
        importlib.import_module(module.name)

def run(directory, environment, seconds, commands):
    signal.alarm(seconds)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    told = []
    for argv in commands:
        sys.argv = ["mailstack", *argv]
        err = io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            try:
                cli.main()
            except SystemExit as end:
                told.append((end.code, err.getvalue()))
    return told

for line in sys.stdin:
    answer, said = os.memfd_create("answer"), os.memfd_create("said")
    if not (child := os.fork()):
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(said, stream)
        os.write(answer, json.dumps(run(**json.loads(line))).encode())
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answered, uttered = (os.pread(each, os.fstat(each).st_size, 0).decode() for each in (answer, said))
    os.close(answer), os.close(said)
    print(json.dumps([code, uttered, json.loads(answered or "[]")]), flush=True)
"""


class User:
    """A user, root among them, who runs commands."""

    def __init__(self, uid: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable if uid == 0 else _python(uid), "-c", SERVER],
            cwd="/",
            env=paths() | {"PYTHONDONTWRITEBYTECODE": "1"},
            user=uid,
            group=uid,
            extra_groups=[Path("/var/run/docker.sock").stat().st_gid],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, directory: Path, environment: dict[str, str], commands: Sequence[Sequence[str]]
    ) -> list[tuple[int, str]]:
        """Run commands in one new process; return exit code and messages of each."""
        assert self._process.stdin and self._process.stdout
        case = {
            "directory": str(directory),
            "environment": paths() | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
            "seconds": SECONDS,
            "commands": commands,
        }
        print(json.dumps(case), file=self._process.stdin, flush=True)
        code, said, told = json.loads(self._process.stdout.readline())
        assert code == 0 and "Traceback" not in said, (code, said)
        return [(code, err) for code, err in told]

    def close(self) -> None:
        """End the user's process."""
        self._process.communicate(timeout=SECONDS)


@contextlib.contextmanager
def user(uid: int) -> Iterator[User]:
    """Yield a user who may use the engine."""
    made = User(uid)
    try:
        yield made
    finally:
        made.close()


def _python(uid: int) -> str:
    """Return a Python that a user can run, with the packages of this one."""
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(PermissionError):
            words = [python, "-c", "import click, yaml"]
            if subprocess.run(words, user=uid, cwd="/", env=paths(), capture_output=True, check=False).returncode == 0:
                return python
    pytest.skip("an ordinary user can run no Python here that has what mailstack needs")


def paths() -> dict[str, str]:
    """Return the variables with which a user's Python finds mailstack and its packages."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    return {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *packages]),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
