"""Command lines of Compose, and the choice of a Compose."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.engine import compose
from mailstack.errors import HostError
from mailstack.model import Command, Result
from mailstack.storage import directories
from tests.unit.fakes import FakeRunner

PROJECT = compose.Compose(Path("/bin/docker-compose"), "mailstack-a", [Path("lab.yaml"), Path("mine.yaml")], {"X": "1"})
BASE = ("/bin/docker-compose", "-p", "mailstack-a", "-f", "lab.yaml", "-f", "mine.yaml")


def test_every_command_names_the_project_and_its_files() -> None:
    assert PROJECT.config().argv == (*BASE, "config", "--format", "json")


def test_up_neither_builds_nor_pulls() -> None:
    argv = PROJECT.up().argv
    assert {"--no-build", "--pull", "never", "-d"} <= set(argv)


def test_the_images_are_built_one_after_the_other_so_that_they_share_a_layer() -> None:
    assert PROJECT.build().environment["COMPOSE_PARALLEL_LIMIT"] == "1"


def test_down_takes_volumes_and_orphans_along() -> None:
    assert {"--volumes", "--remove-orphans"} <= set(PROJECT.down().argv)


def test_the_environment_goes_with_each_command() -> None:
    assert PROJECT.up().environment["X"] == "1"
    assert PROJECT.up().environment["COMPOSE_PROFILES"] == ""


@pytest.fixture
def binaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path / "run"))
    directories.make(directories.root(), directories.Marker(directories.ROOT))  # a lab is up
    found = []
    for name in ("old", "new"):
        path = tmp_path / name
        path.write_text(name)
        path.chmod(0o755)
        found.append(path)
    monkeypatch.setattr(compose, "candidates", lambda: found)
    return found


def _versions(command: Command) -> Result:
    return Result(0, {"old": "2.10.2\n", "new": "v5.6.1\n"}[Path(command.argv[0]).name], "")


def test_the_first_compose_that_is_new_enough_is_chosen(binaries: list[Path]) -> None:
    assert compose.find(FakeRunner(_versions)) == binaries[1]


def test_a_compose_is_asked_for_its_version_once(binaries: list[Path]) -> None:
    runner = FakeRunner(_versions)
    compose.find(runner)
    compose.find(runner)
    assert len(runner.commands) == 2


def test_a_compose_that_was_replaced_is_asked_again(binaries: list[Path]) -> None:
    runner = FakeRunner(_versions)
    compose.find(runner)
    binaries[1].write_text("another one")
    compose.find(runner)
    assert len(runner.commands) == 3


def test_without_a_compose_that_is_new_enough_the_old_one_is_named(binaries: list[Path]) -> None:
    with pytest.raises(HostError, match=r"2\.24 or newer is needed; .*old is 2\.10\.2") as caught:
        compose.find(FakeRunner(lambda command: Result(0, "2.10.2", "")))
    assert "mailstack[compose]" in caught.value.remedy
