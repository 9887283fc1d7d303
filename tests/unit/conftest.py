"""For all unit tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long one example takes says more of the machine, and what else it does, than of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A directory for MAILSTACK_RUNTIME_DIR whose path is short enough for sockets; that of `tmp_path` need not be."""
    with tempfile.TemporaryDirectory(prefix="mailstack-", dir="/dev/shm") as directory:
        yield Path(directory)
