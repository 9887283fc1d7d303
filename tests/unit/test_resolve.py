"""Compose files resolved to a definition, without starting a lab."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailstack.definition import bundled
from mailstack.engine.compose import Compose
from mailstack.errors import HostError, LabFileError
from mailstack.lab import resolve
from mailstack.model import PORTS, Result
from mailstack.roles import LABEL
from tests.unit.fakes import FakeRunner
from tests.unit.world import NAME, World


@pytest.fixture
def ours(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world whose Compose answers commands that bring their own runner."""
    monkeypatch.setattr(resolve, "Local", lambda: world.runner)
    return world


def overlay(path: Path, text: str = "services: {}\n") -> Path:
    file = path / "overlay.yaml"
    file.write_text(text)
    return file


def test_a_definition_is_resolved_without_an_engine(ours: World, tmp_path: Path) -> None:
    ours.api.gone = True
    file = overlay(tmp_path)
    ours.compose.block["domains"]["example.com"] = {"catch_all": "alice@example.com"}
    document = resolve.resolved(ours.tools.engine, NAME, [file])
    assert document["x-mailstack"] == ours.compose.block
    assert f"-f {bundled.compose_file('lab.yaml')} -f {file}" in ours.runner.lines[-1]
    assert not ours.home.path.exists()


@pytest.mark.sockets
def test_the_files_of_a_lab_that_is_up_are_resolved_again(standing: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "Local", lambda: standing.runner)
    document = resolve.resolved(standing.tools.engine, NAME, [])
    found = standing.directory.load()
    assert found
    published = document["services"]["dovecot"]["ports"][0]["published"]
    assert int(published) in found.ports.values()


def test_dollar_signs_that_compose_doubles_are_single_in_the_definition(ours: World) -> None:
    ours.compose.block = {"a$$b": [{"c": "$$d"}, 7]}
    found = resolve.resolve(ours.runner, _compose(), [])
    assert found["x-mailstack"] == {"a$b": [{"c": "$d"}, 7]}


def test_a_mistake_in_the_block_is_named_with_its_place(ours: World, tmp_path: Path) -> None:
    file = overlay(tmp_path, "x-mailstack:\n  mailname: 7\n")
    ours.compose.block["mailname"] = 7
    with pytest.raises(LabFileError, match=rf"^{file}:2:\d+: .*mailname"):
        resolve.resolved(ours.tools.engine, NAME, [file])


def test_a_file_that_compose_refuses_is_named(tmp_path: Path) -> None:
    file = overlay(tmp_path, "services:\n  x: [\n")
    runner = FakeRunner(lambda command: Result(1, "", f"yaml: {file}: line 3: did not find the next item"))
    with pytest.raises(LabFileError, match=rf"^{file}:"):
        resolve.resolve(runner, _compose(), [file])


def test_exactly_one_service_has_each_role(ours: World, tmp_path: Path) -> None:
    image = {"image": "debian", "labels": {LABEL: "store"}}
    file = overlay(tmp_path, f"services:\n  other:\n    labels:\n      {LABEL}: store\n")
    ours.compose.services = {"other": image}
    with pytest.raises(LabFileError, match=rf"{file}:4:\d+: .*exactly one service must have the role store"):
        resolve.resolved(ours.tools.engine, NAME, [file])


def test_a_service_in_a_profile_is_missed(ours: World, tmp_path: Path) -> None:
    file = overlay(tmp_path, "services:\n  sender:\n    profiles: [never]\n")
    document = ours.compose.document("mailstack-x", _ENVIRONMENT)
    del document["services"]["sender"]
    with pytest.raises(LabFileError, match=r"services\.sender must stay part of the lab, and out of profiles"):
        resolve.read_definition(document, [bundled.compose_file("lab.yaml"), file])


def test_files_that_cannot_be_read_are_refused_before_compose_runs(ours: World, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "pipe", "should be a file"),
        (tmp_path / "nowhere", "cannot be read: No such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (Path("a\0b"), "cannot be read: embedded null byte"),
    ):
        with pytest.raises(LabFileError, match=reason):
            resolve.resolve(ours.runner, _compose(), [path])
    assert ours.runner.commands == []


def test_secrets_for_plain_compose_are_written_into_a_new_directory_only(ours: World, tmp_path: Path) -> None:
    names = resolve.init_secrets(ours.tools.target, tmp_path / "secrets", [])
    assert {"accounts", "ca.pem", "relay", "postfix.pem"} <= set(names)
    assert (tmp_path / "secrets" / "accounts").stat().st_mode & 0o777 == 0o600
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes").touch()
    for directory in (tmp_path / "used", tmp_path / "a:b"):
        with pytest.raises(HostError) as caught:
            resolve.init_secrets(ours.tools.target, directory, [])
        assert caught.value.remedy == "name a new directory, or an empty one of your own"


_ENVIRONMENT = {
    **dict.fromkeys(("MAILSTACK_LAB", "MAILSTACK_OWNER", "MAILSTACK_EXPIRES", "MAILSTACK_TAG"), "x"),
    **{port.variable: "1" for port in PORTS},
}


def _compose() -> Compose:
    return Compose(Path("docker-compose"), "mailstack-x", [], _ENVIRONMENT)
