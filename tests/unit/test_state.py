"""The stored state of a lab, and its lock."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mailstack.errors import DeadlinePassed, HostError, InputError
from mailstack.lab import guard
from mailstack.model import Deadline
from mailstack.state import LabDirectory, State, check_name
from mailstack.target.target import Target
from tests.unit.homes import home, words

STATE = State("a", "me@here", "never", "tag", ("lab.yaml",), {"smtp": 20000})


@pytest.fixture
def directory(tmp_path: Path) -> LabDirectory:
    return LabDirectory(home(tmp_path), "a")


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a" * 31, "a/b", "..", "a b", "ä"])
def test_a_name_that_cannot_be_a_lab_s_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="invalid lab name"):
        check_name(name)


def test_a_state_is_read_as_it_was_saved(directory: LabDirectory) -> None:
    directory.make()
    directory.save(STATE)
    assert directory.load() == STATE
    assert directory.home.labs() == ["a"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"lab": "a"}', '{"unknown": 1}'])
def test_a_state_that_cannot_be_read_is_none(directory: LabDirectory, text: str) -> None:
    directory.make()
    (directory.path / "lab.json").write_text(text)
    assert directory.load() is None


def test_nothing_is_left_after_removal(directory: LabDirectory, tmp_path: Path) -> None:
    with directory.locked(Deadline.after(1)):
        directory.make()
        directory.save(STATE)
        directory.remove()
    assert list(tmp_path.iterdir()) == []


def test_one_command_at_a_time_works_on_a_lab(directory: LabDirectory) -> None:
    waited = []
    again = LabDirectory(directory.home, "a").locked(Deadline.after(0.1), lambda: waited.append(True))
    with directory.locked(Deadline.after(1)), pytest.raises(DeadlinePassed, match=r"after 0\.1 s"), again:
        pass
    assert waited


def test_who_waits_gets_the_lock_when_it_is_free(directory: LabDirectory) -> None:
    got = threading.Event()
    released = threading.Event()

    def wait() -> None:
        with LabDirectory(directory.home, "a").locked(Deadline.after(10)):
            assert released.is_set()
            got.set()

    with directory.locked(Deadline.after(1)):
        thread = threading.Thread(target=wait)
        thread.start()
        released.set()
    thread.join(10)
    assert got.is_set()


@pytest.mark.process
def test_the_lock_is_held_as_long_as_a_child_that_inherited_it_lives(directory: LabDirectory, tmp_path: Path) -> None:
    directory.make()
    with directory.locked(Deadline.after(1)) as lock:
        code = "import sys; print(flush=True); sys.stdin.read()"
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(lock,)
        )
        assert child.stdout and child.stdout.readline()
    with pytest.raises(DeadlinePassed), LabDirectory(directory.home, "a").locked(Deadline.after(0.1)):
        pass
    child.communicate()
    with LabDirectory(directory.home, "a").locked(Deadline.after(5)):
        pass


def test_the_reaper_waits_for_the_moment(directory: LabDirectory) -> None:
    directory.make()
    directory.save(State("a", "me", "1000000000", "t", (), {}))
    assert guard.wait(directory, 1000000000.0)


def test_the_reaper_leaves_when_the_lab_is_gone_or_another(directory: LabDirectory) -> None:
    assert not guard.wait(directory, 1000000000.0)
    directory.make()
    directory.save(State("a", "me", "2000000000", "t", (), {}))
    assert not guard.wait(directory, 1000000000.0)


@pytest.mark.process
def test_the_reaper_that_waits_for_a_moment_ends_as_soon_as_the_lab_is_gone(directory: LabDirectory) -> None:
    directory.make()
    directory.save(State("a", "me", "9999999999", "t", (), {}))
    code = (
        "import pathlib, signal, sys; from mailstack.lab import guard as reaper;"
        "from mailstack.state import Home, LabDirectory;"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO]); reaper._LOOK = 60; print(flush=True);"
        "there = LabDirectory(Home(pathlib.Path(sys.argv[1]), *sys.argv[2:]), 'a');"
        "print(reaper.wait(there, 9999999999.0))"
    )
    command = [sys.executable, "-c", code, *words(directory.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        directory.remove()
        assert process.communicate(timeout=10)[0] == "False\n"


def test_the_reaper_tries_a_host_again_until_nothing_is_known_of_it_any_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = home(tmp_path)
    there.make()
    asked = []

    def connect() -> Target:
        asked.append("far")
        if len(asked) == 2:
            there.tidy()
        raise HostError("it does not answer")

    monkeypatch.setattr(guard, "_PAUSE", 0.01)
    with pytest.raises(SystemExit):
        guard.after_up(guard.EngineAccess(connect, remote=True), there, "lab")
    assert asked == ["far", "far"]
