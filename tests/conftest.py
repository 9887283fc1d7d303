"""What holds for all tests."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.engine_used import EngineUsed
from tests.guard import Guard
from tests.named_at_once import NamedAtOnce
from tests.order import LongestFirst

# How long one example takes says more of the machine, and what else it does, than of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `make test` asks for."""
    parser.addoption("--require-engine", action="store_true", help="fail where no test on Docker was run")


def pytest_configure(config: pytest.Config) -> None:
    """Have SIGINT mean something, and compile the modules once.

    A shell's background job is started with SIGINT ignored, and so is all that it starts. Some images of Python forbid
    it to keep bytecode, for the sake of their size: then each of the thousands of commands would compile mailstack.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    config.pluginmanager.register(Guard(), "guard")
    config.pluginmanager.register(LongestFirst(str(Path(__file__).parent)), "longest_first")
    if not hasattr(config, "workerinput"):  # once, where xdist collects
        config.pluginmanager.register(NamedAtOnce(config), "named_at_once")
        if config.getoption("require_engine"):
            config.pluginmanager.register(EngineUsed(), "engine_used")


@pytest.fixture
def runtime() -> Iterator[Path]:
    """Yield a directory for MAILSTACK_RUNTIME_DIR with a path short enough for sockets; that of `tmp_path` may be too
    long.
    """
    with tempfile.TemporaryDirectory(prefix="mailstack-", dir="/dev/shm") as directory:
        yield Path(directory)
