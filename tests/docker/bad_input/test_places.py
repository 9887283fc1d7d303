"""Places to write to that cannot be used: named, and nothing is left there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mailstack.lab import homes
from mailstack.storage import directories
from tests import engines
from tests.docker.bad import MAILSTACK, Outcome, Traces, run
from tests.docker.bad_input import RUN

pytestmark = pytest.mark.docker

LAB = f"places-{RUN}"  # never comes up
UP = ("up", "-n", LAB)


@dataclass(frozen=True)
class Place:
    """A directory that cannot be used."""

    path: str
    says: str
    prepare: Callable[[Path], None] = field(default=lambda tmp: None)


PLACES = [
    pytest.param(Place("file", "", lambda tmp: (tmp / "file").touch()), id="a file"),
    pytest.param(Place("file/below", "Not a directory", lambda tmp: (tmp / "file").touch()), id="below a file"),
    pytest.param(Place("link", "", lambda tmp: (tmp / "link").symlink_to("nowhere")), id="a link to nothing"),
    pytest.param(Place("/proc/mailstack", ""), id="in /proc"),
    pytest.param(Place("/dev/null/mailstack", "Not a directory"), id="below a device"),
    pytest.param(Place("x" * 300, "File name too long"), id="a name of 300 letters"),
    pytest.param(
        Place("others", "belongs to another user", lambda tmp: _given_away(tmp / "others")),
        id="another user's",
        marks=pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away"),
    ),
]


def _given_away(path: Path) -> None:
    path.mkdir()
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", [("up",), ("down", "-n", LAB)], ids=("up", "down"))
def test_a_runtime_directory_that_cannot_be_used_is_named(
    command: tuple[str, ...],
    place: Place,
    wrong: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place.prepare(tmp_path)
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path / place.path))
    message = wrong(*command, code=3).messages[0]
    assert str(tmp_path / place.path) in message
    assert place.says in message


@pytest.mark.parametrize("taken", ["", ".lock", "/files", "/files/accounts", "/lab.json"])
def test_what_stands_in_the_way_in_the_runtime_directory_is_named(
    taken: str, wrong: Callable[..., Outcome], traces: Traces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path / "run"))
    path = Path(f"{homes.current(engines.here()).path}/{LAB}{taken}")
    homes.current(engines.here()).make()
    if taken.startswith("/"):
        homes.directory(engines.here(), LAB).make()
        if taken == "/files":
            shutil.rmtree(path)
    if path.suffix or path.name == "accounts":
        path.mkdir()
    else:
        path.touch()
    assert str(path) in wrong(*UP, code=3).messages[0]


def test_a_disk_that_is_full_is_told_with_the_file_and_nothing_is_left(traces: Traces) -> None:
    before = traces.all()
    # What stands for a full disk: files of 1024 bytes at the most.
    limited = subprocess.run(
        ("bash", "-c", f"ulimit -f 1; exec {MAILSTACK} up -n {LAB}"), check=False, capture_output=True, text=True
    )
    outcome = Outcome(limited.returncode, limited.stdout, limited.stderr)
    assert (outcome.code, len(outcome.messages), outcome.out) == (3, 1, "")
    assert f"{homes.directory(engines.here(), LAB).path}/" in outcome.messages[0]
    assert traces.all() == before


def test_a_runtime_directory_and_a_note_that_cannot_be_read_are_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", "relative")
    directories.make(directories.root(), directories.Marker(directories.ROOT))
    (directories.root() / "compose.json").mkdir(mode=0o700)
    assert run(UP).code == 0
    assert run(["down", "-n", LAB]).code == 0


@pytest.mark.parametrize("place", PLACES)
def test_secrets_cannot_be_written_there(place: Place, wrong: Callable[..., Outcome], tmp_path: Path) -> None:
    place.prepare(tmp_path)
    message = wrong("secrets", "init", str(tmp_path / place.path), code=3).messages[0]
    assert str(tmp_path / place.path) in message
    assert place.says in message
