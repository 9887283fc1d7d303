"""The commands of the README and of the guide work in order, and print what the documents show."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDE = ROOT / "docs" / "guide.md"
TEACHERS = ROOT / "docs" / "teachers.md"
BIN = Path(sys.executable).parent


def commands(document: Path) -> list[str]:
    """Return the commands of a document's console blocks, in order and without comments."""
    lines = "".join(re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL)).splitlines()
    return [re.sub(r"\s+# .*", "", line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]


def run(line: str, environment: dict[str, str], directory: Path = ROOT) -> str:
    """Run a line as a shell would; return all its output."""
    # Not as a part of the `make` that runs these tests, which would tell its children how to talk.
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    result = subprocess.run(
        ["bash", "-c", line],
        env={**own, "PATH": f"{BIN}:{os.environ['PATH']}", **environment},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{line}: {result.returncode}\n{result.stdout[-3000:]}"
    return result.stdout


def test_the_commands_of_the_readme_work_in_their_order(labs: Labs) -> None:
    environment = {"MAILSTACK_NAME": labs.new_name("readme")}
    outputs = {line: run(line, environment) for line in commands(README)}
    assert len(outputs) >= 10
    assert "CCN Lab" in outputs["mailstack read bob@example.com"]
    assert outputs["mailstack trace --last"].splitlines()[-1].startswith("delivered to bob@example.com in")
    assert "passed" in outputs["mailstack check"] and "failed" not in outputs["mailstack check"]
    assert '"removed": []' in run("mailstack down --json", environment)  # the README's last command took it down


def test_the_commands_of_the_guide_work_in_their_order(labs: Labs, tmp_path: Path) -> None:
    name, ci, plain = (labs.new_name(stem) for stem in ("guide", "ci", "plain"))
    secrets = Path("/dev/shm") / f"mailstack-{plain}"
    compose = str(BIN / "docker-compose")
    if not Path(compose).exists():
        compose = "docker compose"
    environment = {"MAILSTACK_NAME": name, "MAILSTACK_LAB": plain, "COMPOSE_PROJECT_NAME": f"mailstack-{plain}"}
    outputs = {}
    try:
        for line in commands(GUIDE):
            adapted = line.replace(" -n ci", f" -n {ci}").replace("docker compose", compose)
            adapted = adapted.replace("/dev/shm/my-secrets", str(secrets))
            adapted = adapted.replace("results.xml", str(tmp_path / "results.xml"))
            adapted = adapted.replace("experiment-report", str(tmp_path / "report"))
            outputs[line] = run(adapted, environment)
    finally:
        shutil.rmtree(secrets, ignore_errors=True)
    assert len(outputs) >= 20
    assert "delivered to bob@example.com" in outputs["mailstack trace --last"]
    assert "passed" in outputs["mailstack check"] and "failed" not in outputs["mailstack check"]
    assert (tmp_path / "results.xml").stat().st_size
    assert (tmp_path / "report" / "index.html").stat().st_size


def test_the_commands_of_a_lesson_work_in_their_order_and_what_is_broken_is_explained_and_undone(labs: Labs) -> None:
    environment = {"MAILSTACK_NAME": labs.new_name("lesson")}
    waits = 'mailstack send --via sender --to bob@example.com --subject "Where am I?"'
    outputs = {line: run(f"{line}; test $? = 1" if line == waits else line, environment) for line in commands(TEACHERS)}
    assert waits in outputs and len(outputs) == 12
    assert "delivered to bob@example.com" in outputs["mailstack trace --last"]
    assert "2525" in outputs["mailstack queue"] and "relayhost" in outputs["mailstack explain"]
    arrived = run("mailstack queue sender flush && mailstack queue wait && mailstack read bob@example.com", environment)
    assert "Where am I?" in arrived
    run("mailstack down", environment)


def test_make_up_in_a_fresh_clone_ends_with_the_mail_that_was_read(labs: Labs, tmp_path: Path) -> None:
    name = labs.new_name("clone")
    clone = tmp_path / "clone"
    run(f"git clone --quiet {ROOT} {clone}", {})
    shown = run("make up", {"MAILSTACK_NAME": name}, clone)
    last = [line for line in shown.splitlines() if line.strip()][-1]
    assert last == "This is the first mail of the lab"
    assert "Subject: CCN Lab" in shown and "From: student@example.com" in shown and "via sender" in shown
    run("make down", {"MAILSTACK_NAME": name}, clone)


def test_make_alone_says_what_can_be_made() -> None:
    shown = run("make", {})
    assert all(f"make {target}" in shown for target in ("up", "down", "test", "unit", "lint", "bench", "clean"))
