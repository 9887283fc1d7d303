"""Find the home of an engine among the homes of this user's labs, and labs in the other homes."""

from __future__ import annotations

from mailstack import state
from mailstack.engine.engine import Engine
from mailstack.errors import EngineError
from mailstack.state import Home, LabDirectory, endpoint_of
from mailstack.storage import directories


def current(engine: Engine) -> Home:
    """Return the home of an engine, without creating it. Raises EngineError when the engine does not answer."""
    return Home(directories.root(), endpoint_of(engine.target.url), engine.identity)


def known(engine: Engine) -> Home:
    """Return the home of an engine, by its endpoint when it does not answer: for commands that do not need the engine.

    Raises EngineError when it does not answer, and no home or several homes have its endpoint.
    """
    try:
        return current(engine)
    except EngineError:
        endpoint = endpoint_of(engine.target.url)
        candidates = [home for home in state.homes(directories.root()) if home.endpoint == endpoint]
        if len(candidates) != 1:
            raise
        return candidates[0]


def directory(engine: Engine, name: str) -> LabDirectory:
    """Return the directory of a lab on an engine. Raises EngineError, InputError."""
    state.check_name(name)
    return LabDirectory(current(engine), name)


def known_directory(engine: Engine, name: str) -> LabDirectory:
    """Return the directory of a lab on an engine, which need not answer. Raises InputError.

    Raises EngineError when it does not answer, and another engine has a lab of this name.
    """
    state.check_name(name)
    try:
        return LabDirectory(known(engine), name)
    except EngineError:
        if on_other_engines(no_home(), name):
            raise
        return LabDirectory(no_home(), name)


def no_home() -> Home:
    """Return a home without labs, for commands that work without an engine. Raises HostError."""
    return Home(directories.root(), "", "")


def on_other_engines(home: Home, name: str) -> list[str]:
    """Return the endpoints of the other engines on which this user has a lab of this name."""
    return [other.endpoint for other in state.homes(home.root) if other != home and name in other.labs()]
