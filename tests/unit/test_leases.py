"""Leases on a lab: real processes, real locks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailstack.lab import leases
from mailstack.lab.leases import Leases
from mailstack.state import Home
from mailstack.target.target import LocalTarget
from tests.unit.fakes import FakeRunner
from tests.unit.homes import home, words

USERS = (
    "import pathlib, sys; from mailstack.state import Home; from mailstack.lab.leases import Leases;"
    "users = Leases(Home(pathlib.Path(sys.argv[1]), *sys.argv[2:]), 'a'); "
)
JOIN = f"{USERS}users.acquire(); "


@pytest.fixture
def there(tmp_path: Path) -> Home:
    return home(tmp_path)


@contextmanager
def user(there: Home, then: str = "print(flush=True)") -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that holds a lease on the lab until it is killed."""
    code = f"{JOIN}{then}; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, *words(there)], stdin=-1, stdout=-1) as process:
        assert process.stdout and process.stdout.readline() == b"\n"
        yield process
        process.kill()


@contextmanager
def guard(there: Home) -> Iterator[threading.Event]:
    """Start a waiting guard; the event is set when the last lease has ended."""
    alone = threading.Event()
    thread = threading.Thread(target=lambda: Leases(there, "a").wait(alone.set))
    thread.start()
    try:
        yield alone
    finally:
        thread.join(10)
    assert not thread.is_alive()


def test_the_last_to_leave_is_told_so_and_leaves_nothing(there: Home) -> None:
    first, second = Leases(there, "a"), Leases(there, "a")
    first.acquire()
    second.acquire()
    assert not first.release()
    called: list[bool] = []
    assert second.release(lambda: called.append(second.path.exists()))
    assert called == [True]
    assert not there.path.exists()


def test_who_has_not_joined_does_not_leave(there: Home) -> None:
    assert not Leases(there, "a").release()
    assert not there.path.exists()


@pytest.mark.process
def test_a_killed_process_is_no_user_any_more(there: Home) -> None:
    mine = Leases(there, "a")
    with user(there) as other:
        mine.acquire()
        other.kill()
        other.wait()
        assert mine.release()


@pytest.mark.process
def test_the_guard_waits_for_the_second_of_two_killed_users(there: Home) -> None:
    with user(there) as first, user(there) as second, guard(there) as alone:
        first.kill()
        first.wait()
        assert not alone.wait(0.1)
        second.kill()
        assert alone.wait(10)
    assert not there.path.exists()


def test_the_guard_of_a_lab_that_nobody_has_joined_does_not_wait(there: Home) -> None:
    with guard(there) as alone:
        pass
    assert not alone.is_set()
    assert not there.path.exists()


@pytest.mark.process
def test_a_guard_that_starts_after_its_user_was_killed_sees_that_nobody_is_left(there: Home) -> None:
    with user(there):
        pass
    assert Leases(there, "a").is_held() is False
    with guard(there) as alone:
        assert alone.wait(10)
    assert Leases(there, "a").is_held() is None


def test_the_guard_does_nothing_when_the_last_to_leave_did_it(there: Home) -> None:
    mine = Leases(there, "a")
    mine.acquire()
    with guard(there) as alone:
        assert mine.release()
    assert not alone.is_set()


def test_nobody_joins_while_the_last_one_takes_the_lab_down(there: Home) -> None:
    mine, next_one = Leases(there, "a"), Leases(there, "a")
    mine.acquire()
    joining = threading.Thread(target=next_one.acquire)

    def last() -> None:
        joining.start()
        joining.join(0.05)
        assert joining.is_alive()

    assert mine.release(last)
    joining.join(10)
    assert not joining.is_alive()
    assert Leases(there, "a").is_held()
    assert next_one.release()


@pytest.mark.process
def test_a_child_that_was_forked_is_no_user(there: Home) -> None:
    with user(there, "import os; os.fork() and print(flush=True)") as parent:
        parent.kill()
        parent.wait()
        with guard(there) as alone:
            assert alone.wait(5)


@pytest.mark.process
def test_there_is_one_guard_for_a_lab(there: Home) -> None:
    runner = FakeRunner()
    code = f"{USERS}users.wait(lambda: print('alone', flush=True))"
    with user(there) as only:
        leases.guard(LocalTarget("unix:///run/engine.sock"), there, "a", runner)
        assert [command.argv[-4:] for command in runner.released] == [("users", "a", there.endpoint, there.engine)]
        with subprocess.Popen([sys.executable, "-c", code, *words(there)], stdout=-1) as process:
            while not Leases(there, "a").guarded():
                os.sched_yield()
            leases.guard(LocalTarget("unix:///run/engine.sock"), there, "a", runner)
            assert len(runner.released) == 1
            only.kill()
            assert process.communicate(timeout=10)[0] == b"alone\n"


def test_the_guard_is_told_where_the_lab_is(there: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILSTACK_OWNER", "me")
    runner = FakeRunner()
    leases.guard(LocalTarget("unix:///run/engine.sock"), there, "a", runner)
    environment = runner.released[0].environment
    assert (environment["MAILSTACK_RUNTIME_DIR"], environment["MAILSTACK_OWNER"]) == (str(there.root.parent), "me")
    assert (environment["DOCKER_HOST"], environment["MAILSTACK_HOST"]) == ("unix:///run/engine.sock", "")


@pytest.mark.process
def test_a_users_file_is_forgotten_when_nobody_uses_the_lab(there: Home) -> None:
    with user(there) as other:
        Leases(there, "a").forget()
        assert there.files(".users") == ["a"]
        other.kill()
        other.wait()
        Leases(there, "a").forget()
    assert there.files(".users") == []
