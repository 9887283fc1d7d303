"""The engine that tests use: the one that the environment chooses, as for a command without options."""

from __future__ import annotations

import os

from mailstack.engine.engine import Engine
from mailstack.target import target


def here() -> Engine:
    """The engine, anew: tests change the environment."""
    return Engine(target.local(os.environ))


def url() -> str:
    """Its address."""
    return target.local(os.environ).url
