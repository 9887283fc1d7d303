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

    Raises EngineError when several engines were there that do not answer.
    """
    try:
        return current()
    except EngineError:
        root, endpoint = storage.root(), endpoint_of(engine_url())
        found = [home for home in state.homes(root) if home.endpoint == endpoint]
        if len(found) > 1:
            raise
        return found[0] if found else Home(root, endpoint, "")


def directory(name: str) -> LabDirectory:
    """Return the directory of a lab on the engine in use. Raises EngineError, InputError."""
    return LabDirectory(current(), name)


@functools.cache
def engine_id(url: str) -> str:
    """Return the ID of the engine at an endpoint, asked once in a process. Raises EngineError."""
    return str(Engine(url).info().get("ID", ""))


def on_other_engines(home: Home, name: str) -> list[str]:
    """Return the endpoints of the other engines on which this user has a lab of this name."""
    return [other.endpoint for other in state.homes(home.root) if other != home and name in other.labs()]
