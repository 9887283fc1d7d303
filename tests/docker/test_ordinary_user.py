"""The commands that change a lab, as an ordinary user in the engine's group: they work, and `up` heals."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from mailstack.engine import projects
from tests import engines

pytestmark = pytest.mark.docker

USER = 61234  # nobody has to know this number
ROOT = Path(__file__).parents[2]
ENTRY = "from mailstack.__main__ import main; main()"


@dataclass(frozen=True)
class User:
    """A user with a runtime directory, and a lab."""

    place: Path
    python: str
    lab: str
    uid: int = USER
    owner: str = ""  # of the lab; its name by default

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command as this user."""
        packages = [path for path in sys.path if path.endswith("site-packages")]
        environment = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *packages]),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": "/nonexistent",
            "LOGNAME": "somebody",
            "MAILSTACK_RUNTIME_DIR": str(self.place),
            "MAILSTACK_OWNER": self.owner or self.lab,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.Popen(
            [self.python, "-c", ENTRY, *words],
            cwd=self.place,
            env=environment,
            user=self.uid,
            group=self.uid,
            extra_groups=[Path("/var/run/docker.sock").stat().st_gid],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> str:
        """Run a command on the lab; it must succeed. Return its output."""
        group = 2 if words[0] in ("account", "secrets") else 1
        name = [] if "--all" in words or "--stale" in words else ["-n", self.lab]
        with self.start(*words[:group], *name, *words[group:]) as process:
            out, err = process.communicate(timeout=180)
        assert process.returncode == 0, (words, out[-1000:], err[-2000:])
        return out

    def interrupt(self, number: signal.Signals, *words: str) -> None:
        """Start a command on the lab and signal it after a while."""
        group = 2 if words[0] in ("account", "secrets") else 1
        with self.start(*words[:group], "-n", self.lab, *words[group:]) as process:
            try:
                process.communicate(timeout=0.6)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                process.communicate(timeout=60)


def _python() -> str:
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run([python, "-c", ""], user=USER, cwd="/", capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip("an ordinary user can run no Python here")


@contextlib.contextmanager
def somebody(lab: str, uid: int = USER, owner: str = "") -> Iterator[User]:
    """Yield a user of this lab, which is removed at the end."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    assert uid not in {entry.pw_uid for entry in pwd.getpwall()}
    place = Path(tempfile.mkdtemp(prefix="mailstack-user-", dir="/dev/shm"))
    os.chown(place, uid, uid)
    try:
        yield User(place, _python(), lab, uid, owner)
    finally:
        for thing in engines.here().leftovers(lab, owner or lab):
            engines.here().remove(thing)
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Yield a user with a lab that is up."""
    with somebody(f"user-{secrets.token_hex(4)}") as made:
        made.run("up")
        yield made


def test_postfix_starts_again_after_an_account_was_added(user: User) -> None:
    user.run("account", "add", "zoe@example.com")
    project = projects.project_name(user.lab, projects.User(USER, ""))
    docker.from_env().containers.get(f"{project}-postfix-1").restart()
    user.run("up")
    user.run("send", "--to", "zoe@example.com", "--subject", "for zoe")
    assert [mail["subject"] for mail in json.loads(user.run("inbox", "zoe@example.com", "--json"))["mails"]] == [
        "for zoe"
    ]
    user.run("account", "remove", "zoe@example.com")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(
    "words",
    [
        ("up",),
        ("account", "add", "yan@example.com"),
        ("secrets", "rotate"),
        ("check", "relay"),
        ("load", "--messages", "40", "--mailboxes", "4"),
        ("send", "--via", "sender", "--to", "bob@example.com"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_what_is_interrupted_is_healed_by_one_up(user: User, words: tuple[str, ...], number: signal.Signals) -> None:
    before = json.loads(user.run("status", "--json"))["accounts"]
    user.interrupt(number, *words)
    user.run("up")
    user.run("status", "--probe")
    status = json.loads(user.run("status", "--json"))
    assert status["unfinished"] == [] and set(status["accounts"]) - {"yan@example.com"} == set(before) - {
        "yan@example.com"
    }
    if "yan@example.com" in status["accounts"]:
        user.run("account", "remove", "yan@example.com")


def test_a_down_that_is_interrupted_is_finished(user: User) -> None:
    user.interrupt(signal.SIGTERM, "down")
    user.run("down")
    assert engines.here().leftovers(user.lab, user.lab) == []
    assert [path.name for path in user.place.rglob("*") if user.lab in path.name] == []


def test_two_users_of_one_engine_have_a_lab_of_the_same_name_each() -> None:
    token = secrets.token_hex(4)
    with somebody("lab", USER + 1, f"first-{token}") as first, somebody("lab", USER + 2, f"second-{token}") as second:
        with first.start("up", "--json") as one, second.start("up", "--json") as two:  # at the same moment
            told = [each.communicate(timeout=300) for each in (one, two)]
        assert [each.returncode for each in (one, two)] == [0, 0], told
        ups = [json.loads(out) for out, _ in told]
        assert all(up["verified"]["milliseconds"] > 0 for up in ups)
        ports = [{endpoint["port"] for endpoint in up["endpoints"].values()} for up in ups]
        assert not ports[0] & ports[1]
        first.run("send", "--to", "bob@example.com", "--subject", f"of {first.owner}")
        second.run("account", "add", "zoe@example.com")
        for user, subjects, accounts in ((first, [f"of {first.owner}"], 0), (second, [], 1)):
            status = json.loads(user.run("status", "--probe", "--json"))
            assert sum(address == "zoe@example.com" for address in status["accounts"]) == accounts
            inbox = json.loads(user.run("inbox", "bob@example.com", "--json"))
            assert [mail["subject"] for mail in inbox["mails"]] == subjects
        others = set(engines.here().leftovers("lab", second.owner))
        first.run("down", "--all")
        assert engines.here().leftovers("lab", first.owner) == []
        assert set(engines.here().leftovers("lab", second.owner)) == others and len(others) > 5
        second.run("status", "--probe")
        second.run("check", "exposure")
        assert not json.loads(first.run("down", "--stale", "--json"))["removed"]
        second.run("down")
        assert engines.here().leftovers("lab", second.owner) == []
        assert not [*first.place.rglob("lab*"), *second.place.rglob("lab*")]
