"""A run of half an hour names each test that fails at once, and not only at its end."""

from __future__ import annotations

import pytest


class NamedAtOnce:
    """Names a failed test on a line of its own; what it says comes at the end of the run, as ever."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Name a test whose fixture, body or end has failed."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and reporter is not None:
            reporter.write_line("")
            reporter.write_line(f"failed: {report.nodeid} ({report.when}, {report.duration:.1f} s)")
