"""Commands that tests run in forked processes end as in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import forked

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    "argv",
    [
        ["--version"],
        ["no-such-command"],
        ["up", "--ttl", "soon"],
        ["secrets", "init", "."],
        ["secrets", "init", "new", "-f", "absent.yaml"],
    ],
)
def test_a_command_has_the_same_code_and_the_same_output(
    argv: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign").touch()
    here = {"MAILSTACK_RUNTIME_DIR": str(tmp_path / "absent")}
    new = subprocess.run(
        [Path(sys.executable).parent / "mailstack", *argv],
        env={**os.environ, **here},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    done = forked.run(argv, here)
    assert (done.returncode, done.stdout, done.stderr) == (new.returncode, new.stdout, new.stderr)
    assert new.stdout + new.stderr


def test_commands_run_side_by_side_each_with_its_own_answer() -> None:
    commands = [[word, "--help"] for word in ("up", "down", "status", "check", "send", "trace")] * 3
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(forked.run_text, commands))
    for argv, each in zip(commands, done, strict=True):
        assert (each.returncode, each.stderr) == (0, "") and f"mailstack {argv[0]}" in each.stdout
