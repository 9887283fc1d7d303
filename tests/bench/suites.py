"""Suites of tests that use the plugin, run by pytest in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

# Where the installed metadata are older than the entry point.
_INSTALLED = bool(metadata.entry_points(group="pytest11", name="mailstack"))
_PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
_PYTEST += [] if _INSTALLED else ["-p", "mailstack.plugin"]

# What each test of the benchmarks does: an application's mail to a fresh mailbox, which is waited for by its subject.
ONE_MAIL = """
from email.message import EmailMessage

def send(settings, to, subject):
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.com", to, subject
    mail.set_content("Dear customer,\\nhere is what you wanted.\\n")
    with settings.connect() as session:
        session.send_message(mail)
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a run: how long it took as a whole process, and what its tests left behind."""

    seconds: float
    processor: float  # seconds that this machine's processors were busy meanwhile, with whatever
    left: dict[str, str]
    failed: str = ""  # what pytest said, where a test failed


def run_suite(source: str, *options: str, conftest: str = "", may_fail: bool = False) -> Ran:
    """Run a suite to its end, a green one unless it `may_fail`; files that it leaves (`*.json`) come back with it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "test_suite.py").write_text(source)
        (directory / "conftest.py").write_text(conftest)
        begun, busy = time.perf_counter(), busy_seconds()
        result = subprocess.run([*_PYTEST, *options], cwd=directory, capture_output=True, text=True, check=False)
        seconds, processor = time.perf_counter() - begun, busy_seconds() - busy
        failed = f"{result.stdout[-4000:]}{result.stderr[-2000:]}" if result.returncode != 0 else ""
        if failed and not may_fail:
            sys.exit(f"a suite of the benchmarks failed:\n{failed}")
        return Ran(seconds, processor, {path.name: path.read_text() for path in directory.glob("*.json")}, failed)


def busy_seconds() -> float:
    """How long this machine's processors have been busy since it started (proc_stat(5))."""
    user, nice, system, _, _, interrupts, soft_interrupts, *_ = Path("/proc/stat").read_text().split()[1:]
    ticks = sum(map(int, (user, nice, system, interrupts, soft_interrupts)))
    return ticks / os.sysconf("SC_CLK_TCK")
