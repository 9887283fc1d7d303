"""Without an answer of an engine, nothing is left: no process that waits for one, and no file."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.model import Deadline

pytestmark = pytest.mark.process

SUITE = """
def test_it(mailbox):
    raise AssertionError("there is no lab")
"""


def processes(mark: str) -> list[str]:
    """Return the command lines of other processes with `mark` in their command line or environment."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (each / "cmdline").read_bytes()
            if each.name != str(os.getpid()) and mark.encode() in line + (each / "environ").read_bytes():
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


def left(directory: Path) -> tuple[list[str], list[str]]:
    """Return the processes and files that are left after a short wait."""
    deadline = Deadline.after(10)
    while True:
        files = sorted(str(each.relative_to(directory)) for each in directory.rglob("*") if not each.is_dir())
        found = processes(str(directory)), [each for each in files if each != "run/mailstack/.mailstack"]
        if not any(found) or deadline.passed():
            return found
        time.sleep(0.05)


def run(directory: Path, *words: str, engine: str = "unix:///nowhere/docker.sock") -> subprocess.CompletedProcess[str]:
    (directory / "run").mkdir()
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "MAILSTACK_RUNTIME_DIR": str(directory / "run"), "DOCKER_HOST": engine},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Return the command line of a run of pytest."""
    path = tmp_path / "suite" / "test_suite.py"
    path.parent.mkdir()
    path.write_text(SUITE)
    yield "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(path.parent), str(path)
    path.unlink()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    found = tmp_path / "place"
    found.mkdir()
    return found


def test_a_run_of_pytest_says_so_and_leaves_nothing(place: Path, suite: tuple[str, ...]) -> None:
    done = run(place, *suite)
    assert "mailstack: no Docker engine answers at unix:///nowhere/docker.sock" in done.stdout
    assert "→ start it, or run `mailstack provision`" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert left(place) == ([], [])


@pytest.fixture
def short_lived(tmp_path: Path) -> Iterator[str]:
    """Return an engine that answers who it is, and is then down."""
    path = tmp_path / "engine.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            path.unlink()
            listener.close()
            text = json.dumps({"ID": "ABCD:EFGH", "ServerVersion": "26.1", "ApiVersion": "1.45"})
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())

    threading.Thread(target=serve, daemon=True).start()
    yield f"unix://{path}"
    listener.close()


@pytest.mark.sockets
def test_a_run_of_pytest_whose_engine_goes_before_anything_is_made_leaves_nothing(
    place: Path, suite: tuple[str, ...], short_lived: str
) -> None:
    done = run(place, *suite, engine=short_lived)
    assert "mailstack: no Docker engine answers" in done.stdout
    assert left(place) == ([], [])


@pytest.mark.parametrize(
    "words",
    [["up"], ["up", "--keep"], ["up", "--ttl", "1h"], ["down"], ["down", "--all"], ["experiment"], ["check"], ["load"]],
    ids=" ".join,
)
def test_no_command_leaves_anything(place: Path, words: list[str]) -> None:
    done = run(place, "-m", "mailstack", *words)
    assert done.returncode in (2, 3)
    assert "Traceback" not in done.stderr
    assert left(place) == ([], [])
