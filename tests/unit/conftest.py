"""Fixtures for all unit tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from mailstack.host import requirements
from mailstack.model import SERVICES
from tests.unit.world import World, tag

# How long one example takes says more of the machine, and what else it does, than of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture
def runtime() -> Iterator[Path]:
    """Yield a directory for MAILSTACK_RUNTIME_DIR with a path short enough for sockets; that of `tmp_path` may be too
    long.
    """
    with tempfile.TemporaryDirectory(prefix="mailstack-", dir="/dev/shm") as directory:
        yield Path(directory)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return an engine, Compose and a directory in memory, with the images of a lab."""
    binary = tmp_path / "docker" / "cli-plugins" / "docker-compose"
    binary.parent.mkdir(parents=True)
    binary.touch(mode=0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("MAILSTACK_OWNER", "me")
    monkeypatch.setattr(requirements, "short_of_disk", lambda engine: "")
    made = World(tmp_path)
    made.api.images |= {f"mailstack/{service}:{tag()}" for service in SERVICES}
    return made


@pytest.fixture
def standing(world: World) -> World:
    """Return a world with a running lab."""
    world.up()
    world.runner.commands.clear()
    world.said.clear()
    return world
