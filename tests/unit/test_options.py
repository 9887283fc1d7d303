"""The host that a command works on, if it is given in several ways at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mailstack.errors import HostError
from mailstack.target import choice

pytestmark = pytest.mark.process

NOBODY = "ssh://nobody@127.0.0.1:1"  # where nothing listens


@pytest.fixture
def home(runtime: Path) -> Path:
    """Return the home of a user with a context `near`, whose engine is on this machine and does not run."""
    meta = runtime / ".docker" / "contexts" / "meta" / "near"
    meta.mkdir(parents=True)
    endpoint = {"Host": f"unix://{runtime}/nothing.sock"}
    (meta / "meta.json").write_text(json.dumps({"Name": "near", "Endpoints": {"docker": endpoint}}))
    return runtime


def told(home: Path, *words: str, **environment: str) -> tuple[int, str]:
    """Run `mailstack`; return its exit code and its standard error."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAILSTACK", "DOCKER"))}
    done = subprocess.run(
        [sys.executable, "-m", "mailstack", *words],
        env={**inherited, "HOME": str(home), "MAILSTACK_RUNTIME_DIR": str(home / "run"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("hosts", [NOBODY, f"{NOBODY} {NOBODY}2"])
def test_a_context_on_the_command_line_wins_over_a_host_in_the_environment(home: Path, hosts: str) -> None:
    code, said = told(home, "version", "--context", "near", MAILSTACK_HOST=hosts)
    assert code == 0 and f"{home}/nothing.sock" in said


def test_a_host_on_the_command_line_wins_over_a_context_in_the_environment(home: Path) -> None:
    code, said = told(home, "version", "--host", NOBODY, MAILSTACK_VERSION_CONTEXT="near")
    assert code == 3 and said.startswith(f"mailstack: {NOBODY}: ")


def test_a_host_and_a_context_on_one_command_line_are_the_users_mistake(home: Path) -> None:
    code, said = told(home, "version", "--host", NOBODY, "--context", "near")
    assert (code, said.splitlines()[0]) == (2, "mailstack: --host and --context exclude each other")
    assert "give one of them" in said


def test_a_runtime_directory_where_no_socket_fits_is_told_before_the_host_is_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", "/dev/shm/" + "long-" * 20)
    with pytest.raises(HostError, match="may have 107 bytes"):
        choice.choose({}, host="ssh://nobody@machine.invalid")
