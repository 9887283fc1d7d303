"""A lab whose files are not where a command looks for them: in another runtime directory, or of an earlier version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from mailstack.engine import projects
from mailstack.lab import homes
from tests import engines
from tests.docker.bad import Traces, alone, run
from tests.docker.hostile_places import snapshot

pytestmark = pytest.mark.docker

NAME = "moved"


@pytest.fixture
def traces() -> Iterator[Traces]:
    with alone("elsewhere") as made:
        yield made


def test_a_second_up_does_not_replace_a_lab_whose_files_are_elsewhere_and_down_finds_them(
    traces: Traces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    with monkeypatch.context() as first:
        first.setenv("MAILSTACK_RUNTIME_DIR", str(other))
        assert run(["up", "-n", NAME]).code == 0
        place = homes.directory(engines.here(), NAME).path
    before = snapshot(place)
    second = run(["up", "-n", NAME])
    assert second.code == 2 and f"its files are in {place}" in second.err
    asked = run(["status", "-n", NAME])
    assert asked.code == 2 and f"its files are in {place}" in asked.err
    assert snapshot(place) == before and traces.files() == set()
    assert run(["down", "-n", NAME]).out == f"removed: {NAME}\n"
    assert traces.all() == set() and list(other.iterdir()) == []


def test_labs_are_found_without_the_variables_of_a_session(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAILSTACK_RUNTIME_DIR")
    session = traces.directory / "session"
    session.mkdir(mode=0o700)
    try:
        assert run(["up", "-n", NAME], {"XDG_RUNTIME_DIR": str(session)}).code == 0
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)  # as cron, su and sudo do
        assert run(["status", "-n", NAME]).code == 0
    finally:
        assert run(["down", "-n", NAME]).out == f"removed: {NAME}\n"


@pytest.mark.parametrize("known", [True, False], ids=["the engine has it", "the engine does not have it"])
def test_a_lab_of_the_version_before_markers_is_taken_down_if_the_engine_knows_it(traces: Traces, known: bool) -> None:
    client = docker.from_env()
    place = traces.directory / NAME  # that version kept labs in the directory itself
    document = {
        "lab": NAME,
        "owner": traces.owner,
        "expires": "never",
        "tag": "t",
        "files": [],
        "ports": {},
        "engine": engines.url(),
    }
    (place / "files").mkdir(parents=True)
    (place / "lab.json").write_text(json.dumps(document))
    (place / "files" / "accounts").write_text("a secret")
    (traces.directory / f"{NAME}.lock").touch()
    (traces.directory / "thesis").mkdir()
    (traces.directory / "thesis" / "chapter").write_text("a year's work")
    before = snapshot(traces.directory)
    if known:
        labels = {"mailstack.lab": NAME, "mailstack.owner": traces.owner}
        client.volumes.create(f"{projects.project_name(NAME)}_queue", labels=labels)
    outcome = run(["down", "--stale"])
    assert outcome.code == 0
    if known:
        assert outcome.out == "nothing to remove\n", "it never expires"
        assert run(["down", "--all"]).out == f"removed: {NAME}\n"
        assert traces.all() == {"thesis", "thesis/chapter"}
    else:
        assert run(["down", "--all"]).out == "nothing to remove\n"
        assert snapshot(traces.directory) == before
