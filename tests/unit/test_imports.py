"""When modules are imported: `mailstack --help` is fast. import-linter checks which room may import which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.process
def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from mailstack.cli.main import cli; cli(['--help'], standalone_mode=False); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"docker", "fabric", "rich", "yaml", "cryptography", "imap_tools", "requests", "ssl", "jinja2", "paramiko"}
    assert not heavy & set(loaded)


@pytest.mark.process
def test_an_engine_is_prepared_without_installed_packages() -> None:
    """`make up` runs it while pip installs them."""
    code = "import mailstack.host.prepare"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
