"""The homes of this user's labs: which one belongs to the engine in use, and what the others have."""

from __future__ import annotations

import functools

from mailstack import state, storage
from mailstack.engine import Engine, engine_url
from mailstack.errors import EngineError
from mailstack.state import Home, LabDirectory, endpoint_of


def current() -> Home:
    """Return the home of the engine in use; nothing of it is made. Raises EngineError where no engine answers."""
    url = engine_url()
    return Home(storage.root(), endpoint_of(url), engine_id(url))


def known() -> Home:
    """Return the same for commands that ask the engine for nothing: one that does not answer is known by its endpoint.

    Raises EngineError when there were several, or none.
    """
    try:
        return current()
    except EngineError:
        endpoint = endpoint_of(engine_url())
        found = [home for home in state.homes(storage.root()) if home.endpoint == endpoint]
        if len(found) != 1:
            raise
        return found[0]


def directory(name: str) -> LabDirectory:
    """Return the directory of a lab on the engine in use. Raises EngineError, InputError."""
    state.check_name(name)
    return LabDirectory(current(), name)


def known_directory(name: str) -> LabDirectory:
    """Return the directory of a lab on the engine in use, which need not answer. Raises InputError.

    Raises EngineError where none answers, and a lab of this name is on another engine.
    """
    state.check_name(name)
    try:
        return LabDirectory(known(), name)
    except EngineError:
        if on_other_engines(nowhere(), name):
            raise
        return LabDirectory(nowhere(), name)


def nowhere() -> Home:
    """Return a home without labs, for what is done without an engine. Raises HostError."""
    return Home(storage.root(), "", "")


@functools.cache
def engine_id(url: str) -> str:
    """Return the ID of the engine at an endpoint, asked once in a process. Raises EngineError."""
    return str(Engine(url).info().get("ID", ""))


def on_other_engines(home: Home, name: str) -> list[str]:
    """Return the endpoints of the other engines on which this user has a lab of this name."""
    return [other.endpoint for other in state.homes(home.root) if other != home and name in other.labs()]
