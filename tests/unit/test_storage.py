"""Directories of mailstack: marked, private, never accessed through a link."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from mailstack import state
from mailstack.errors import EngineError, HostError
from mailstack.lab import elsewhere, homes
from mailstack.state import Home, LabDirectory, State
from mailstack.storage import directories
from mailstack.storage.directories import LAB, ROOT, Marker
from tests import engines
from tests.unit.homes import home


def test_a_directory_is_made_private_and_marked_and_again_it_is_the_same(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directories.make(tmp_path / "own", Marker(LAB, lab="a"))
    finally:
        os.umask(before)
    inode = (tmp_path / "own").stat().st_ino
    directories.make(tmp_path / "own", Marker(LAB, lab="a"))
    status = (tmp_path / "own").stat()
    assert (status.st_mode & 0o777, status.st_ino) == (0o700, inode)
    assert directories.read(tmp_path / "own") == Marker(LAB, lab="a")
    assert [each.name for each in tmp_path.iterdir()] == ["own"]


def test_of_several_that_make_one_directory_at_once_each_gets_it(tmp_path: Path) -> None:
    failed: list[HostError] = []

    def make() -> None:
        try:
            directories.make(tmp_path / "own", Marker(ROOT))
        except HostError as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and [each.name for each in tmp_path.iterdir()] == ["own"]


def test_an_empty_directory_is_taken_and_one_that_others_share_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir(mode=0o755)
    directories.make(tmp_path / "empty", Marker(ROOT))
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700
    for mode in (0o1777, 0o777, 0o775):
        shared = tmp_path / f"{mode:o}"
        shared.mkdir()
        shared.chmod(mode)
        with pytest.raises(HostError, match="is shared with other users"):
            directories.make(shared, Marker(ROOT))
        assert shared.stat().st_mode & 0o7777 == mode and list(shared.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kind": 1, "more": 2}', '{"kind": "root", "format": 99}'])
def test_a_marker_that_says_something_else_marks_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / ".mailstack").write_text(text)
    (tmp_path / "thesis").write_text("a year's work")
    assert directories.read(tmp_path) is None
    directories.remove(tmp_path)
    assert (tmp_path / "thesis").exists()


def test_a_marker_that_is_a_link_or_a_pipe_marks_nothing(tmp_path: Path) -> None:
    directories.make(tmp_path / "own", Marker(ROOT))
    for name in ("link", "pipe"):
        (tmp_path / name).mkdir()
    (tmp_path / "link" / ".mailstack").symlink_to(tmp_path / "own" / ".mailstack")
    os.mkfifo(tmp_path / "pipe" / ".mailstack")
    assert directories.read(tmp_path / "link") is None and directories.read(tmp_path / "pipe") is None
    (tmp_path / "to").symlink_to(tmp_path / "own")
    assert directories.read(tmp_path / "to") is None


def test_a_removal_follows_no_link_and_leaves_the_marker_until_the_end(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis").write_text("a year's work")
    own = tmp_path / "own"
    directories.make(own, Marker(LAB, lab="a"))
    (own / "files").mkdir()
    (own / "files" / "link").symlink_to(foreign)
    (own / "link").symlink_to(foreign)
    (own / "file").hardlink_to(foreign / "thesis")
    directories.remove(own)
    assert not own.exists() and (foreign / "thesis").read_text() == "a year's work"


def test_a_removal_that_was_interrupted_can_be_repeated(tmp_path: Path) -> None:
    own = tmp_path / "own"
    directories.make(own, Marker(LAB, lab="a"))
    (own / "kept").mkdir()
    (own / "kept" / "busy").write_text("")
    if os.getuid():
        (own / "kept").chmod(0o500)
    directories.remove(own)
    if own.exists():
        assert directories.read(own) == Marker(LAB, lab="a")
        (own / "kept").chmod(0o700)
        directories.remove(own)
    assert not own.exists()


def test_only_marked_directories_are_labs_and_only_empty_files_are_locks(tmp_path: Path) -> None:
    there = home(tmp_path)
    LabDirectory(there, "real").make()
    (there.path / "thesis").mkdir()
    (there.path / "thesis" / "lab.json").write_text("{}")
    directories.make(there.path / "other-name", Marker(LAB, lab="another"))
    (there.path / "link").symlink_to(there.path / "real")
    for name, text in (("real.lock", ""), ("thesis.lock", "mine"), ("notes.users", "mine"), ("A!.users", "")):
        (there.path / name).write_text(text)
    assert there.labs() == ["real"]
    assert there.files(".lock") == ["real"] and there.files(".users") == []


def test_engines_differ_by_their_endpoint_and_by_their_id(tmp_path: Path) -> None:
    paths = {Home(tmp_path, endpoint, engine).path for endpoint in ("unix:///a", "unix:///b") for engine in ("1", "2")}
    assert len(paths) == 4


def test_a_new_lab_leaves_the_ports_of_labs_on_all_engines_alone(tmp_path: Path) -> None:
    first, second = home(tmp_path), Home(home(tmp_path).root, "unix:///elsewhere", "AN-ENGINE")
    lab = LabDirectory(first, "a")
    lab.make()
    lab.save(State("a", "me@here", "never", "tag", (), {"smtp": 20123}))
    assert state.reserved_ports(second, "a") == {20123}
    assert state.reserved_ports(first, "a") == set()


def test_the_files_of_a_lab_on_another_machine_s_engine_at_the_same_path_are_left_alone(tmp_path: Path) -> None:
    ours = LabDirectory(home(tmp_path), "a")
    ours.make()
    cloned = Home(tmp_path / "other", "tcp://clone:2375", "AN-ENGINE")
    elsewhere.remove(ours.path, LabDirectory(cloned, "a"))
    assert ours.is_made()
    elsewhere.remove(ours.path, LabDirectory(Home(tmp_path / "other", ours.home.endpoint, "AN-ENGINE"), "a"))
    assert not ours.is_made()


@pytest.mark.sockets
def test_an_engine_that_does_not_answer_is_known_by_its_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    with pytest.raises(EngineError, match="no Docker engine answers"):
        homes.known(engines.here())
    there = Home(directories.root(), f"unix://{tmp_path.resolve()}/absent.sock", "AN-ENGINE")
    LabDirectory(there, "a").make()
    assert homes.known(engines.here()) == there


def test_what_is_only_looked_at_makes_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path / "named"))
    assert home(directories.base()).labs() == []
    assert list(tmp_path.iterdir()) == []


def test_the_marker_says_whose_and_on_which_engine_a_lab_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILSTACK_OWNER", "me@here")
    lab = LabDirectory(home(tmp_path), "a")
    lab.make()
    assert json.loads((lab.path / ".mailstack").read_text()) == {
        "kind": "lab",
        "owner": "me@here",
        "endpoint": "unix:///nowhere/docker.sock",
        "engine": "AN-ENGINE",
        "lab": "a",
        "format": 1,
    }


def test_a_link_in_the_place_of_a_directory_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(HostError, match="link: is a symbolic link"):
        directories.make(tmp_path / "link", Marker(ROOT))
    assert list((tmp_path / "real").iterdir()) == []
