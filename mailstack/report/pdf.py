"""The report's page as PDF, printed by a browser that is installed on this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from mailstack.errors import HostError
from mailstack.model import Command, Deadline
from mailstack.runner.local import CommandRunner, last_lines

# Browsers that print from the command line. Firefox makes pictures only (--screenshot).
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "brave-browser")

_SECONDS = 60.0  # a page takes one or two


def browser() -> str:
    """Return the path of a browser. Raises HostError when none is there."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise HostError(
            "there is no browser on this machine that prints to PDF: Chromium, Chrome, Edge or Brave",
            remedy="install one (Debian: apt-get install chromium), or use --out DIR and print its index.html",
        )
    return found


def printed(page: str, executable: str, runner: CommandRunner) -> bytes:
    """Return a page of HTML as PDF. Raises HostError, DeadlinePassed, Interrupted.

    The browser has a new profile, which is removed with the page: nothing of the user's is read or changed.
    """
    with tempfile.TemporaryDirectory(prefix="mailstack-") as directory:
        place = Path(directory)
        html, pdf = place / "report.html", place / "report.pdf"
        html.write_text(page, encoding="utf-8")
        argv = [executable, "--headless", "--disable-gpu", "--no-first-run", "--no-pdf-header-footer"]
        # Chromium's sandbox needs another user than root. The page has no script, and loads nothing.
        argv += ["--no-sandbox"] if os.geteuid() == 0 else []
        argv += [f"--user-data-dir={place / 'profile'}", f"--print-to-pdf={pdf}", html.as_uri()]
        result = runner.run(Command(tuple(argv)), deadline=Deadline.after(_SECONDS))
        data = pdf.read_bytes() if pdf.is_file() else b""
    if not data.startswith(b"%PDF-"):
        raise HostError(
            f"{executable} did not print the report (code {result.code})",
            remedy="use --out DIR, and print its index.html",
            details=last_lines(result.stderr),
        )
    return data
