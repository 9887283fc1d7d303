"""Homes of engines that answer, and of engines that do not."""

from __future__ import annotations

import pytest

from mailstack.errors import EngineError
from mailstack.lab import homes
from mailstack.lab.running import RunningLab
from mailstack.state import Home, LabDirectory
from tests.unit.world import NAME, World

pytestmark = pytest.mark.sockets  # free ports are looked for


def test_a_lab_of_an_engine_that_is_gone_is_found_by_the_endpoint(standing: World) -> None:
    standing.api.gone = True
    assert homes.known_directory(standing.tools.engine, NAME).path == standing.directory.path
    assert RunningLab(NAME, standing.tools.engine).state == standing.directory.load()
    with pytest.raises(EngineError, match="no Docker engine answers"):
        homes.directory(standing.tools.engine, NAME)


def test_without_an_engine_an_unknown_lab_is_nowhere(world: World) -> None:
    world.api.gone = True
    found = homes.known_directory(world.tools.engine, NAME)
    assert (found.home, found.load()) == (homes.no_home(), None)


def test_without_an_engine_a_lab_of_another_endpoint_is_not_taken_for_it(standing: World) -> None:
    standing.directory.remove()
    other = Home(standing.home.root, "unix:///other.sock", "ANOTHER")
    LabDirectory(other, NAME).make()
    standing.api.gone = True
    assert homes.on_other_engines(homes.no_home(), NAME) == ["unix:///other.sock"]
    with pytest.raises(EngineError):
        homes.known_directory(standing.tools.engine, NAME)


def test_of_two_engines_behind_one_endpoint_neither_is_chosen(standing: World) -> None:
    LabDirectory(Home(standing.home.root, standing.home.endpoint, "ANOTHER"), "other").make()
    standing.api.gone = True
    with pytest.raises(EngineError):
        homes.known(standing.tools.engine)
