"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest

from tests.engine_used import EngineUsed
from tests.guard import Guard


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `make test` asks for."""
    parser.addoption("--require-engine", action="store_true", help="fail where no test on Docker was run")


def pytest_configure(config: pytest.Config) -> None:
    """Have SIGINT mean something: a shell's background job is started with it ignored, and so is all that it starts."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Guard(), "guard")
    if config.getoption("require_engine") and not hasattr(config, "workerinput"):  # once, where xdist collects
        config.pluginmanager.register(EngineUsed(), "engine_used")
