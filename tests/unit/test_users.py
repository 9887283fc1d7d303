"""Who uses a lab: real processes, real locks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailstack import users
from mailstack.users import Users
from tests.unit.fakes import FakeRunner

JOIN = "import sys; from mailstack.users import Users; users = Users('a'); users.join(); "


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@contextmanager
def user(then: str = "print(flush=True)") -> Iterator[subprocess.Popen[bytes]]:
    """A process that uses the lab until it is killed."""
    with subprocess.Popen([sys.executable, "-c", f"{JOIN}{then}; sys.stdin.read()"], stdin=-1, stdout=-1) as process:
        assert process.stdout and process.stdout.readline() == b"\n"
        yield process
        process.kill()


@contextmanager
def guard() -> Iterator[threading.Event]:
    """A guard, waiting; the event is set when the last user has gone."""
    alone = threading.Event()
    thread = threading.Thread(target=lambda: Users("a").wait(alone.set))
    thread.start()
    try:
        yield alone
    finally:
        thread.join(10)
    assert not thread.is_alive()


def test_the_last_to_leave_is_told_so_and_leaves_nothing(runtime: Path) -> None:
    first, second = Users("a"), Users("a")
    first.join()
    second.join()
    assert not first.leave()
    called: list[bool] = []
    assert second.leave(lambda: called.append(second.path.exists()))
    assert called == [True]
    assert list(runtime.iterdir()) == []


def test_who_has_not_joined_does_not_leave(runtime: Path) -> None:
    assert not Users("a").leave()
    assert list(runtime.iterdir()) == []


def test_a_killed_process_is_no_user_any_more(runtime: Path) -> None:
    mine = Users("a")
    with user() as other:
        mine.join()
        other.kill()
        other.wait()
        assert mine.leave()


def test_the_guard_waits_for_the_second_of_two_killed_users(runtime: Path) -> None:
    with user() as first, user() as second, guard() as alone:
        first.kill()
        first.wait()
        assert not alone.wait(0.1)
        second.kill()
        assert alone.wait(10)
    assert list(runtime.iterdir()) == []


def test_the_guard_of_a_lab_that_nobody_has_joined_does_not_wait(runtime: Path) -> None:
    with guard() as alone:
        pass
    assert not alone.is_set()
    assert list(runtime.iterdir()) == []


def test_a_guard_that_starts_after_its_user_was_killed_sees_that_nobody_is_left(runtime: Path) -> None:
    with user():
        pass
    assert Users("a").used() is False
    with guard() as alone:
        assert alone.wait(10)
    assert Users("a").used() is None


def test_the_guard_does_nothing_when_the_last_to_leave_did_it(runtime: Path) -> None:
    mine = Users("a")
    mine.join()
    with guard() as alone:
        assert mine.leave()
    assert not alone.is_set()


def test_nobody_joins_while_the_last_one_takes_the_lab_down(runtime: Path) -> None:
    mine, next_one = Users("a"), Users("a")
    mine.join()
    joining = threading.Thread(target=next_one.join)

    def last() -> None:
        joining.start()
        joining.join(0.05)
        assert joining.is_alive()

    assert mine.leave(last)
    joining.join(10)
    assert not joining.is_alive()
    assert Users("a").used()
    assert next_one.leave()


def test_a_child_that_was_forked_is_no_user(runtime: Path) -> None:
    with user("import os; os.fork() and print(flush=True)") as parent:
        parent.kill()
        parent.wait()
        with guard() as alone:
            assert alone.wait(5)


def test_there_is_one_guard_for_a_lab(runtime: Path) -> None:
    runner = FakeRunner()
    code = "import sys; from mailstack.users import Users; Users('a').wait(lambda: print('alone', flush=True))"
    with user() as only:
        users.guard("a", runner)
        assert [command.argv[-3:] for command in runner.released] == [("mailstack.reaper", "users", "a")]
        with subprocess.Popen([sys.executable, "-c", code], stdout=-1) as process:
            while not Users("a").guarded():
                os.sched_yield()
            users.guard("a", runner)
            assert len(runner.released) == 1
            only.kill()
            assert process.communicate(timeout=10)[0] == b"alone\n"


def test_the_guard_is_told_where_the_lab_is(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runtime)
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", "here")
    monkeypatch.setenv("MAILSTACK_OWNER", "me")
    runner = FakeRunner()
    users.guard("a", runner)
    environment = runner.released[0].environment
    assert (environment["MAILSTACK_RUNTIME_DIR"], environment["MAILSTACK_OWNER"]) == (str(runtime / "here"), "me")


def test_a_users_file_is_forgotten_when_nobody_uses_the_lab(runtime: Path) -> None:
    with user() as other:
        Users("a").forget()
        assert users.used_labs() == ["a"]
        other.kill()
        other.wait()
        Users("a").forget()
    assert users.used_labs() == []
