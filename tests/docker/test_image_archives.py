"""Images in a file, from one real engine to another that has none, and the failures on the way."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from mailstack import state
from mailstack.definition import bundled
from mailstack.images import build
from mailstack.model import LABEL_LAB, SERVICES
from tests import forked
from tests.docker import nested
from tests.docker.remote import answer, left, mailstack

pytestmark = pytest.mark.docker

TAG = build.content_tag(bundled.stack())


def command(*words: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command on this machine's engine; it must end with `code`, and without a traceback."""
    done = forked.run_text(words, environment)
    assert done.returncode == code, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def saved(images: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the images of this version."""
    path = tmp_path_factory.mktemp("archive") / "images.tar.gz"
    done = command("images", "save", path, "--json")
    found = json.loads(done.stdout)
    assert (found["file"], found["bytes"], found["tag"]) == (str(path), path.stat().st_size, TAG)
    assert set(found["images"]) == set(SERVICES)
    assert " of about " in done.stderr
    assert [each.name for each in path.parent.iterdir()] == ["images.tar.gz"]
    return path


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mount(8) needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.remote
def test_an_engine_without_a_network_has_a_lab_by_a_file(saved: Path, for_remote: None) -> None:
    with nested.machine(state.owner(), image=nested.REMOTE) as empty:
        assert empty.engine.images.list() == []
        loaded = answer(empty, "images", "load", saved)
        assert loaded["tag"] == TAG and all(loaded["images"].values())
        up = mailstack(empty, "up", "-n", "loaded", "--json")
        assert json.loads(up.stdout)["verified"]["milliseconds"] > 0
        assert "pulling" not in up.stderr and "sending the images" not in up.stderr
        versions = answer(empty, "version")
        assert versions["images"] == loaded["images"]
        mailstack(empty, "down", "-n", "loaded")
        assert left(empty) == []


def test_what_is_loaded_is_what_was_saved(saved: Path) -> None:
    before = json.loads(command("version", "--json").stdout)
    found = json.loads(command("images", "load", saved, "--json").stdout)
    assert found["images"] == before["images"]
    assert before["base"].startswith("sha256:") and before["tag"] == TAG
    assert before["postfix"].startswith("3.") and ":2." in before["dovecot"] and before["debian"].startswith("13.")


def test_version_leaves_no_container(saved: Path) -> None:
    command("version")
    made = docker.from_env().containers.list(all=True, filters={"label": [LABEL_LAB]})
    assert [each.name for each in made if each.labels[LABEL_LAB].startswith("versions-")] == []


def test_half_a_file_is_refused_and_changes_nothing(saved: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])
    said = command("images", "load", half, code=2).stderr
    assert f"{half}: is not an image archive, or is incomplete" in said


def test_a_file_that_is_not_there_and_one_that_is_in_the_way(saved: Path, tmp_path: Path) -> None:
    assert "No such file" in command("images", "load", tmp_path / "none", code=2).stderr
    assert "--force" in command("images", "save", saved, code=2).stderr


def test_a_full_disk_is_told_and_nothing_is_left(saved: Path, full_disk: Path) -> None:
    said = command("images", "save", full_disk / "file", code=3).stderr
    assert "No space left on device" in said
    assert list(full_disk.iterdir()) == []


def test_without_an_engine_both_say_so(saved: Path, tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/none.sock"
    for words in (("save", tmp_path / "file"), ("load", saved)):
        assert "no Docker engine answers" in command("images", *words, code=3, DOCKER_HOST=nowhere).stderr
    assert list(tmp_path.iterdir()) == []
