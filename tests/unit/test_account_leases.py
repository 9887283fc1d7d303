"""Leases on temporary accounts of a lab: real processes, real locks."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailstack.errors import HostError
from mailstack.lab.account_leases import AccountLease, abandoned

pytestmark = pytest.mark.process

ADDS = (
    "import sys; from pathlib import Path; from mailstack.lab.account_leases import AccountLease; "
    "lease = AccountLease(Path(sys.argv[1])); lease.note(['a@example.com', 'b@example.com']); "
)


@contextmanager
def other(lab: Path, then: str = "print(flush=True)") -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that has added two accounts and runs until it is killed."""
    words = [sys.executable, "-c", f"{ADDS}{then}; sys.stdin.read()", str(lab)]
    with subprocess.Popen(words, stdin=-1, stdout=-1) as process:
        assert process.stdout and process.stdout.readline() == b"\n"
        yield process
        process.kill()


def test_what_a_killed_process_has_added_is_left_and_is_told_once(tmp_path: Path) -> None:
    with other(tmp_path):
        assert list(abandoned(tmp_path)) == []
    assert list(abandoned(tmp_path)) == [["a@example.com", "b@example.com"]]
    assert list(abandoned(tmp_path)) == []


def test_what_could_not_be_removed_is_told_again(tmp_path: Path) -> None:
    with other(tmp_path):
        pass
    next(abandoned(tmp_path))  # and no further: an error, say
    assert len(list(abandoned(tmp_path))) == 1


@pytest.mark.parametrize(
    "then",
    ["lease.removed(['a@example.com', 'b@example.com']); print(flush=True)", "lease.disown(); print(flush=True)"],
)
def test_what_was_removed_or_is_to_stay_is_not_left(then: str, tmp_path: Path) -> None:
    with other(tmp_path, then):
        pass
    assert list(abandoned(tmp_path)) == []
    assert list((tmp_path / "guests").iterdir()) == []


def test_a_child_that_was_forked_owns_nothing(tmp_path: Path) -> None:
    # The child is the one that speaks: by then it has let go of what it was born with.
    with other(tmp_path, "import os; os.fork() or print(flush=True)") as parent:
        parent.kill()
        parent.wait()
        assert len(list(abandoned(tmp_path))) == 1


def test_nobody_takes_a_guest_that_is_only_just_coming_for_one_that_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who did would wait for the lab's lock, which this one has, and this one for the other's."""
    lock = fcntl.flock
    seen: list[list[list[str]]] = []

    def late(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and not seen:  # others look a moment before
            seen.append(list(abandoned(tmp_path)))
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    lease = AccountLease(tmp_path)
    lease.note(["a@example.com"])
    assert seen == [[]]
    assert list(abandoned(tmp_path)) == []
    lease.removed(["a@example.com"])
    assert list((tmp_path / "guests").iterdir()) == []


def test_one_s_own_accounts_are_not_left_as_long_as_one_lives(tmp_path: Path) -> None:
    lease = AccountLease(tmp_path)
    lease.note(["a@example.com"])
    lease.removed(["b@example.com"])
    assert list(abandoned(tmp_path)) == []
    lease.disown()


def test_a_lab_that_has_gone_is_not_made_again_for_its_guests(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be written"):
        AccountLease(tmp_path / "gone").note(["a@example.com"])
    assert list(tmp_path.iterdir()) == []
    assert list(abandoned(tmp_path / "gone")) == []
