"""Of several processes that need the same lab, one brings it up. The locks are real, the lab is a fake."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from mailstack import state
from mailstack.lab import homes
from mailstack.lab import up as lab
from mailstack.model import Deadline
from tests.unit.fakes import FakeEngine

pytestmark = pytest.mark.process


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> state.LabDirectory:
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path))
    found = homes.directory(FakeEngine(), "shared")
    found.make()
    found.save(state.State("shared", state.owner(), "never", "", (), {}, stays=True))
    return found


def test_who_waits_for_another_s_up_does_meanwhile_what_is_to_be_done_anyway(directory: state.LabDirectory) -> None:
    said: list[str] = []
    with contextlib.ExitStack() as up:
        up.enter_context(directory.locked(Deadline.after(5)))

        def meanwhile() -> None:
            said.append("meanwhile")
            up.close()  # the other one's `up` has ended

        lab.ensure(FakeEngine(), lab.Request("shared"), said.append, meanwhile)
    assert said == ["waiting for another command on this lab", "meanwhile"]


def test_who_need_not_wait_does_nothing_meanwhile(directory: state.LabDirectory) -> None:
    said: list[str] = []
    lab.ensure(FakeEngine(), lab.Request("shared"), said.append, lambda: said.append("meanwhile"))
    assert said == []
