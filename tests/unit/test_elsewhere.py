"""Files of a lab in other directories: those of another runtime directory, and of earlier versions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from mailstack.errors import InputError
from mailstack.lab import elsewhere
from mailstack.lab.running import RunningLab
from mailstack.state import Home, LabDirectory
from tests.unit.world import NAME, PROJECT, World

pytestmark = pytest.mark.sockets  # free ports are looked for


def find(world: World) -> list[Path]:
    return elsewhere.find(world.tools.target, world.tools.engine.inventory(NAME), world.directory)


def earlier(world: World, base: Path, owner: str = "me") -> Path:
    """Move the lab's files to where an earlier version kept them, without a marker."""
    found = world.directory.load()
    assert found
    world.directory.remove()
    path = base / NAME
    for directory in (base, path, path / "files"):
        directory.mkdir(mode=0o700, exist_ok=True)
    (path / "lab.json").write_text(json.dumps(asdict(found) | {"owner": owner}))
    (path / "files" / "accounts").write_text("secret")
    (path / "world.yaml").symlink_to("/nowhere")
    (base / f"{NAME}.lock").touch()
    return path


def test_files_that_an_earlier_version_wrote_are_found_and_only_they_are_removed(
    standing: World, tmp_path: Path
) -> None:
    path = earlier(standing, tmp_path)
    assert find(standing) == [path]
    elsewhere.remove(path, standing.directory)
    assert not path.exists() and not path.with_name(f"{NAME}.lock").exists()


def test_a_file_of_the_user_in_such_a_directory_stays(
    standing: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    path = earlier(standing, tmp_path / "run" / "mailstack")
    (path / "notes").write_text("mine")
    assert find(standing) == [path]
    elsewhere.remove(path, standing.directory)
    assert [each.name for each in path.iterdir()] == ["notes"]


def test_directories_of_others_and_without_a_state_are_not_the_labs(standing: World, tmp_path: Path) -> None:
    path = earlier(standing, tmp_path, owner="somebody")
    assert find(standing) == []
    (path / "lab.json").unlink()
    assert find(standing) == []
    path.rename(tmp_path / "moved")
    path.symlink_to("moved")
    assert find(standing) == []


def test_files_that_containers_mount_from_another_runtime_directory_are_found(standing: World, tmp_path: Path) -> None:
    other = LabDirectory(Home(tmp_path / "other", standing.home.endpoint, standing.home.engine), NAME)
    other.make()
    standing.api.containers_[f"{PROJECT}-postfix-1"].mounts = [str(other.files / "accounts"), "/etc/hosts"]
    standing.directory.remove()
    assert find(standing) == [other.path]
    with pytest.raises(InputError, match=f"its files are in {other.path}"):
        RunningLab(NAME, standing.tools.engine)
    elsewhere.remove(other.path, LabDirectory(Home(tmp_path, "unix:///other.sock", "ANOTHER"), NAME))
    assert other.is_made()
    elsewhere.remove(other.path, standing.directory)
    assert not other.path.exists()


def test_nothing_is_searched_for_a_lab_that_the_engine_does_not_have(world: World, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir(mode=0o700)
    assert find(world) == []
