"""Fixtures for all unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.engine import projects
from mailstack.engine.projects import User
from mailstack.host import requirements
from mailstack.model import SERVICES
from tests.unit.world import World, tag


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give labs the names that they have for root, whoever runs the tests."""
    monkeypatch.setattr(projects, "current_user", lambda: User(0, "root"))


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
