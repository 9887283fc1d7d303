"""The record of changes to a lab: real processes, real locks."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailstack.errors import HostError
from mailstack.lab import changes
from mailstack.lab.changes import ACCOUNTS, Change, changing, unfinished

pytestmark = pytest.mark.process

TWO = ("a@example.com", "b@example.com")
ADDS = (
    "import sys; from pathlib import Path; from mailstack.lab.changes import Change; "
    f"change = Change(Path(sys.argv[1])); change.note({list(TWO)}); "
)


@contextmanager
def other(lab: Path, then: str = "print(flush=True)") -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that has noted two accounts and runs until it is killed."""
    words = [sys.executable, "-c", f"{ADDS}{then}; sys.stdin.read()", str(lab)]
    with subprocess.Popen(words, stdin=-1, stdout=-1) as process:
        assert process.stdout and process.stdout.readline() == b"\n"
        yield process
        process.kill()


def accounts(lab: Path) -> list[tuple[str, ...]]:
    """Return the accounts of each unfinished change."""
    return [change.accounts for change in unfinished(lab)]


def test_a_change_is_unfinished_once_its_process_was_killed(tmp_path: Path) -> None:
    with other(tmp_path):
        assert unfinished(tmp_path) == []
    (change,) = unfinished(tmp_path)
    assert (change.command, change.accounts, change.servers) == (ACCOUNTS, TWO, False)
    assert time.time() - 60 < change.since <= time.time()


def test_an_unfinished_change_stays_on_record_until_it_is_struck_out(tmp_path: Path) -> None:
    with other(tmp_path):
        pass
    assert len(unfinished(tmp_path)) == len(unfinished(tmp_path)) == 1
    changes.strike_out(unfinished(tmp_path))
    assert unfinished(tmp_path) == []


@pytest.mark.parametrize("then", [f"change.removed({list(TWO)}); print(flush=True)", "change.end(); print(flush=True)"])
def test_a_change_that_has_ended_leaves_no_record(then: str, tmp_path: Path) -> None:
    with other(tmp_path, then):
        pass
    assert unfinished(tmp_path) == []
    assert list((tmp_path / "changes").iterdir()) == []


def test_a_forked_child_holds_no_change(tmp_path: Path) -> None:
    # The child speaks: by then it has closed what it inherited.
    with other(tmp_path, "import os; os.fork() or print(flush=True)") as parent:
        parent.kill()
        parent.wait()
        assert accounts(tmp_path) == [TWO]


def test_a_change_that_is_being_written_down_is_not_taken_for_an_interrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    seen: list[list[tuple[str, ...]]] = []

    def late(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and not seen:  # others look a moment before
            seen.append(accounts(tmp_path))
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    change = Change(tmp_path)
    change.note(["a@example.com"])
    assert seen == [[]]
    assert unfinished(tmp_path) == []
    change.removed(["a@example.com"])
    assert list((tmp_path / "changes").iterdir()) == []


def test_two_readers_see_the_same_unfinished_change(tmp_path: Path) -> None:
    with other(tmp_path):
        pass
    (path,) = (tmp_path / "changes").iterdir()
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        assert accounts(tmp_path) == [TWO]


def test_a_change_of_this_process_is_not_unfinished(tmp_path: Path) -> None:
    change = Change(tmp_path)
    change.note(["a@example.com"])
    change.removed(["b@example.com"])
    assert unfinished(tmp_path) == []
    change.end()


def test_a_removed_lab_is_not_made_again_for_a_change(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be written"):
        Change(tmp_path / "gone").note(["a@example.com"])
    assert list(tmp_path.iterdir()) == []
    assert unfinished(tmp_path / "gone") == []


def test_a_change_that_failed_stays_on_record_with_its_command_and_mark(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), changing(tmp_path, "check", "check-1") as change:
        raise ZeroDivisionError
    assert unfinished(tmp_path) == []  # as long as its process lives
    change._close()
    (left,) = unfinished(tmp_path)
    assert (left.command, left.mark, left.servers) == ("check", "check-1", True)


@pytest.mark.parametrize("text", ["", "{", "[1]\n", '{"since": 1}\n', "a thesis\n"])
def test_a_file_that_is_no_record_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "changes").mkdir()
    path = tmp_path / "changes" / "0123456789abcdef"
    path.write_text(text)
    assert unfinished(tmp_path) == []
    assert path.read_text() == text


def test_a_record_whose_last_line_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    with other(tmp_path):
        pass
    (path,) = (tmp_path / "changes").iterdir()
    path.write_text(path.read_text()[:-5])
    assert accounts(tmp_path) == [TWO[:1]]


def test_a_link_in_the_place_of_the_record_is_not_followed(tmp_path: Path) -> None:
    for name in ("home", "lab"):
        (tmp_path / name).mkdir()
    with other(tmp_path / "home"):
        pass
    (tmp_path / "lab" / "changes").symlink_to(tmp_path / "home" / "changes")
    assert unfinished(tmp_path / "lab") == []
    with pytest.raises(HostError):
        Change(tmp_path / "lab").begin()
    assert len(unfinished(tmp_path / "home")) == 1
