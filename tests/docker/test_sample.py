"""The sample project of the documents, run from a copy as a user would."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mailstack.lab import homes
from tests import engines
from tests.docker.conftest import Labs
from tests.docker.suites import PLUGIN

pytestmark = pytest.mark.docker

SAMPLE = Path(__file__).parents[2] / "docs" / "sample"


def run(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run its tests in a separate process."""
    words = [sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider", "-W", "error", *options]
    return subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def copy(tmp_path: Path, labs: Labs) -> Path:
    """Copy the project to another place; its labs belong to the session's owner."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(SAMPLE, tmp_path / "shop", ignore=ignored))


def test_its_tests_pass_and_leave_no_lab(copy: Path) -> None:
    count = len(re.findall(r"^def test_", (copy / "test_shop.py").read_text(), re.MULTILINE))
    before = homes.current(engines.here()).labs()
    done = run(copy)
    assert f"{count} passed" in done.stdout and done.returncode == 0, done.stdout + done.stderr
    assert homes.current(engines.here()).labs() == before


def test_they_fail_where_the_shop_is_broken(copy: Path) -> None:
    source = (copy / "shop.py").read_text()
    assert "/confirm?token=" in source
    (copy / "shop.py").write_text(source.replace("/confirm?token=", "/?token="))
    done = run(copy, "-k", "link_confirms")
    assert "1 failed" in done.stdout and done.returncode == 1, done.stdout + done.stderr
    assert "its links: https://shop.example/?token=" in done.stdout
