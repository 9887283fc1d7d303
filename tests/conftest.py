"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest

from tests.guard import Guard


def pytest_configure(config: pytest.Config) -> None:
    """Have SIGINT mean something: a shell's background job is started with it ignored, and so is all that it starts."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Guard(), "guard")
