"""Only directories that mailstack created are touched: hostile directories, as root and as an ordinary user."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mailstack.lab import homes
from tests import engines
from tests.docker import as_user, hostile_places
from tests.docker.as_user import USER, User
from tests.docker.hostile_places import SECRETS, SITUATIONS, Situation, World, snapshot

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def users() -> Iterator[Callable[[int], User]]:
    """Yield a function that returns the user with a number; each is started once."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(uid: int) -> User:
            return stack.enter_context(as_user.user(uid))

        yield start


Run = Callable[[Path | str, Sequence[Sequence[str]]], list[tuple[int, str]]]


@pytest.fixture
def run(world: World, users: Callable[[int], User]) -> Run:
    """Return a function that runs commands as the world's user, and returns exit code and messages of each."""

    def run(named: Path | str, commands: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
        environment = {
            "HOME": "/nonexistent",
            "LOGNAME": "somebody",
            "MAILSTACK_RUNTIME_DIR": str(named),
            "MAILSTACK_OWNER": os.environ["MAILSTACK_OWNER"],
        }
        return users(world.uid).run(world.top, environment, commands)

    return run


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


# Who the user is does not matter to what Compose and the engine make of a name.
CASES = [
    pytest.param(uid, each, id=f"{who}-{each.name}")
    for uid, who in ((0, "root"), (USER, "user"))
    for each in SITUATIONS
    if uid == USER or not each.name.startswith("a name with ")
]


@pytest.mark.parametrize(("world", "situation"), CASES, indirect=["world"])
def test_no_foreign_file_is_changed(world: World, run: Run, situation: Situation) -> None:
    named = situation.prepare(world)
    before = snapshot(world.top)
    ended = run(named, situation.commands)
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
def test_secrets_are_written_to_a_directory_of_their_own_alone(world: World, run: Run, place: Situation) -> None:
    named = place.prepare(world)
    before = snapshot(world.top)
    ended = run(world.top / "runtime", (("secrets", "init", str(named)),) * 2)
    after = snapshot(world.top)
    if place.works:
        assert [code for code, _ in ended] == [0, 0], ended
        assert stat.S_IMODE(named.stat().st_mode) == 0o700
        assert {stat.S_IMODE(each.stat().st_mode) for each in named.rglob("*") if each.is_file()} == {0o600}
    else:
        assert [code for code, _ in ended] == [3, 3] and str(named) in ended[0][1]
        assert after == before


def test_accounts_are_not_added_through_a_link(world: World, run: Run) -> None:
    world.thesis("home")
    named = world.folder("named")
    name = hostile_places.LAB
    ((code, said),) = run(named, (("up", "-n", name),))
    assert code == 0, said
    added = named / world.root / world.home / name / "files" / "added"
    added.rmdir()
    added.symlink_to(world.top / "home")
    before = snapshot(world.top / "home")
    ended = run(named, (("account", "add", "-n", name, "zoe@example.com"), ("down", "-n", name)))
    assert ended[0][0] == 3 and ended[1][0] == 0, ended
    assert snapshot(world.top / "home") == before
    assert list(named.iterdir()) == []
