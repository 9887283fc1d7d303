"""Only directories that mailstack created are touched: hostile directories, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.lab import homes
from tests import engines
from tests.docker import hostile_places
from tests.docker.hostile_places import SECRETS, SITUATIONS, Situation, World, snapshot

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
USER = 61234  # nobody has to know this number

# Runs one command after the other, each as `mailstack` would, and tells what came of it.
RUN = """
import contextlib, io, json, os, sys
from mailstack.cli import main as cli
told = []
for argv in json.loads(sys.argv[1]):
    sys.argv = ["mailstack", *argv]
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main()
        except SystemExit as end:
            told.append((end.code, err.getvalue()))
print(json.dumps(told))
"""


def _python(uid: int) -> str:
    """Return a Python that a user can run, with the packages of this one."""
    for python in (sys.executable, "/usr/bin/python3"):
        found = subprocess.run(
            [python, "-c", "import click, yaml"], user=uid, cwd="/", env=_paths(), capture_output=True, check=False
        ) if _may_run(python, uid) else None  # fmt: skip
        if found and found.returncode == 0:
            return python
    pytest.skip("an ordinary user can run no Python here that has what mailstack needs")


def _may_run(python: str, uid: int) -> bool:
    try:
        return subprocess.run([python, "-c", ""], user=uid, cwd="/", capture_output=True, check=False).returncode == 0
    except PermissionError:
        return False


def _paths() -> dict[str, str]:
    packages = [path for path in sys.path if path.endswith("site-packages")]
    return {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *packages]),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def run(world: World, named: Path | str, commands: tuple[tuple[str, ...], ...]) -> list[tuple[int, str]]:
    """Run commands as the world's user; return exit code and messages of each."""
    environment = {
        **_paths(),
        "HOME": "/nonexistent",
        "LOGNAME": "somebody",
        "MAILSTACK_RUNTIME_DIR": str(named),
        "MAILSTACK_OWNER": os.environ["MAILSTACK_OWNER"],
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [_python(world.uid) if world.uid else sys.executable, "-c", RUN, json.dumps(commands)],
        check=False,
        cwd=world.top,
        env=environment,
        user=world.uid,
        group=0 if world.uid == 0 else USER,
        extra_groups=[Path("/var/run/docker.sock").stat().st_gid],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return [(code, said) for code, said in json.loads(done.stdout)]


@pytest.fixture(params=[0, USER], ids=["root", "user"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    monkeypatch.setenv("MAILSTACK_OWNER", f"places-{secrets.token_hex(4)}")
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", "/dev/shm")
    top = Path(tempfile.mkdtemp(prefix="mailstack-places-", dir="/dev/shm"))
    top.chmod(0o755)
    os.chown(top, request.param, -1)
    try:
        yield World(top, request.param, homes.current(engines.here()).path.name)
    finally:
        for thing in engines.here().leftovers(hostile_places.LAB, os.environ["MAILSTACK_OWNER"]):
            engines.here().remove(thing)
        shutil.rmtree(top)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.name)
def test_no_foreign_file_is_changed(world: World, situation: Situation) -> None:
    named = situation.prepare(world)
    before = snapshot(world.top)
    ended = run(world, named, situation.commands)
    after = snapshot(world.top)
    foreign = {path: about for path, about in before.items() if Path(path) not in world.own}
    assert {path: about for path, about in after.items() if path in foreign} == foreign
    # A directory that was named and was not there may have been made.
    made = {path for path in set(after) - set(before) if Path(path).name != "compose.json" or not world.own}
    assert made <= {str(named.resolve())}, "something stays behind"
    for (code, said), command in zip(ended, situation.commands, strict=True):
        assert code in (0, 2, 3), (command, said)
        assert "Traceback" not in said
        assert "thesis" not in said.partition("removed:")[2] or situation.works
        if command[0] == "up":
            assert (code == 0) == situation.works, said
    assert engines.here().leftovers(hostile_places.LAB, os.environ["MAILSTACK_OWNER"]) == []


@pytest.mark.parametrize("place", SECRETS, ids=lambda each: each.name)
def test_secrets_are_written_to_a_directory_of_their_own_alone(world: World, place: Situation) -> None:
    named = place.prepare(world)
    before = snapshot(world.top)
    ended = run(world, world.top / "runtime", (("secrets", "init", str(named)),) * 2)
    after = snapshot(world.top)
    if place.works:
        assert [code for code, _ in ended] == [0, 0], ended
        assert stat.S_IMODE(named.stat().st_mode) == 0o700
        assert {stat.S_IMODE(each.stat().st_mode) for each in named.rglob("*") if each.is_file()} == {0o600}
    else:
        assert [code for code, _ in ended] == [3, 3] and str(named) in ended[0][1]
        assert after == before


def test_accounts_are_not_added_through_a_link(world: World) -> None:
    world.thesis("home")
    named = world.folder("named")
    name = hostile_places.LAB
    ((code, said),) = run(world, named, (("up", "-n", name),))
    assert code == 0, said
    added = named / world.root / world.home / name / "files" / "added"
    added.rmdir()
    added.symlink_to(world.top / "home")
    before = snapshot(world.top / "home")
    ended = run(world, named, (("account", "add", "-n", name, "zoe@example.com"), ("down", "-n", name)))
    assert ended[0][0] == 3 and ended[1][0] == 0, ended
    assert snapshot(world.top / "home") == before
    assert list(named.iterdir()) == []
