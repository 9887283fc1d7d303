"""What is imported when: `mailstack --help` answers at once. Which room may import which is import-linter's to hold."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.process
def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from mailstack.cli.main import cli; cli(['--help'], standalone_mode=False); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"docker", "fabric", "rich", "yaml", "cryptography", "imap_tools", "requests", "ssl", "jinja2", "paramiko"}
    assert not heavy & set(loaded)
