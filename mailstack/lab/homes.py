"""The homes of this user's labs: which one belongs to an engine, and what the others have."""

from __future__ import annotations

from mailstack import state
from mailstack.engine.engine import Engine
from mailstack.errors import EngineError
from mailstack.state import Home, LabDirectory, endpoint_of
from mailstack.storage import directories


def current(engine: Engine) -> Home:
    """Return the home of an engine; nothing of it is made. Raises EngineError where it does not answer."""
    return Home(directories.root(), endpoint_of(engine.target.url), engine.identity)


def known(engine: Engine) -> Home:
    """Return the same for commands that ask the engine for nothing: one that does not answer is known by its endpoint.

    Raises EngineError when there were several, or none.
    """
    try:
        return current(engine)
    except EngineError:
        endpoint = endpoint_of(engine.target.url)
        found = [home for home in state.homes(directories.root()) if home.endpoint == endpoint]
        if len(found) != 1:
            raise
        return found[0]


def directory(engine: Engine, name: str) -> LabDirectory:
    """Return the directory of a lab on an engine. Raises EngineError, InputError."""
    state.check_name(name)
    return LabDirectory(current(engine), name)


def known_directory(engine: Engine, name: str) -> LabDirectory:
    """Return the directory of a lab on an engine, which need not answer. Raises InputError.

    Raises EngineError where it does not answer, and a lab of this name is on another engine.
    """
    state.check_name(name)
    try:
        return LabDirectory(known(engine), name)
    except EngineError:
        if on_other_engines(nowhere(), name):
            raise
        return LabDirectory(nowhere(), name)


def nowhere() -> Home:
    """Return a home without labs, for what is done without an engine. Raises HostError."""
    return Home(directories.root(), "", "")


def on_other_engines(home: Home, name: str) -> list[str]:
    """Return the endpoints of the other engines on which this user has a lab of this name."""
    return [other.endpoint for other in state.homes(home.root) if other != home and name in other.labs()]
