"""A whole suite that skipped every test on Docker proves nothing: `--require-engine` fails it."""

from __future__ import annotations

import pytest


class EngineUsed:
    """Fails a run of which no test on Docker was run."""

    def __init__(self) -> None:
        self._run = 0
        self._skipped = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count tests on Docker, those that were run and those that were skipped."""
        if "docker" in report.keywords:
            self._skipped += report.skipped
            self._run += report.when == "call" and not report.skipped

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Have the run fail."""
        if not self._run and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say why."""
        if not self._run:
            terminalreporter.write_line(
                f"none of the {self._skipped} tests on Docker was run: is there an engine? See `mailstack doctor`.",
                red=True,
            )
