"""Homes of labs, without an engine."""

from __future__ import annotations

import os
from pathlib import Path

from mailstack.state import Home

ENDPOINT = "unix:///nowhere/docker.sock"


def home(base: Path) -> Home:
    """Return the home of an engine below a directory, as MAILSTACK_RUNTIME_DIR would name it."""
    return Home(base / f"mailstack-labs-{os.getuid()}", ENDPOINT, "AN-ENGINE")


def words(home: Home) -> tuple[str, str, str]:
    """Return the arguments with which another process creates the home: `Home(Path(first), *others)`."""
    return str(home.root), home.endpoint, home.engine
