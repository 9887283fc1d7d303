"""The examples for CI are valid for their services, and use existing options of mailstack and the plugin."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from mailstack import __version__, plugin
from mailstack.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "ci.md").read_text()
EXAMPLES: list[Any] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
WORKFLOW = EXAMPLES[0]["jobs"]["tests"]
STEPS = [step for example in (WORKFLOW["steps"], *EXAMPLES) if isinstance(example, list) for step in example]
JOBS = [example["tests"] for example in EXAMPLES if "tests" in example]
SCRIPTS = [step["run"] for step in STEPS if "run" in step]
SCRIPTS += [line for job in JOBS for key in ("before_script", "script") for line in job.get(key, [])]


def test_each_step_of_a_workflow_runs_or_uses_something() -> None:
    # https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax
    assert EXAMPLES[0][True] == ["push", "pull_request"]  # YAML 1.1, as PyYAML reads it: `on`
    assert set(WORKFLOW) == {"runs-on", "steps"} and len(STEPS) > 8
    for step in STEPS:
        assert len({"run", "uses"} & set(step)) == 1, step
        assert set(step) <= {"run", "uses", "with", "if", "id"}, step


def test_each_job_of_a_pipeline_has_a_script_and_keeps_what_a_lab_knew() -> None:
    # https://docs.gitlab.com/ci/yaml/
    assert len(JOBS) == 2
    for job in JOBS:
        assert set(job) <= {"image", "services", "variables", "cache", "before_script", "script", "artifacts"}
        assert "mailstack-artifacts" in job["artifacts"]["paths"]
        assert all(isinstance(line, str) for line in job["script"])  # a line with `: ` in it is a mapping


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.process
def test_each_script_is_one(script: str) -> None:
    plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
    shell = shutil.which("sh")
    assert shell and subprocess.run([shell, "-n", "-c", plain], capture_output=True, check=False).returncode == 0


def test_commands_and_options_are_those_that_there_are() -> None:
    scripts = "\n".join(SCRIPTS)
    named = re.findall(r"mailstack (\w+)((?: --?[a-z-]+(?: \w+)?)*)", scripts)
    assert {"up", "down", "env", "provision"} <= {name for name, _ in named} <= set(COMMANDS) | {"pytest"}
    for name, words in named:
        command = cli.get_command(click.Context(cli), name) if name in COMMANDS else None
        known = {option for parameter in command.params for option in parameter.opts} if command else set()
        assert set(re.findall(r" (--[a-z-]+)", words)) <= known, (name, words)
    options = set(re.findall(r"--mailstack-[a-z]+", TEXT))
    assert options and all(f'"{option}"' in Path(plugin.__file__).read_text() for option in options)


def test_images_are_kept_under_a_key_that_changes_with_the_version_of_mailstack() -> None:
    (installed,) = {line for script in SCRIPTS for line in script.splitlines() if "pip install" in line}
    assert installed == "pip install --requirement requirements.txt"
    requirements = (ROOT / "docs" / "sample" / "requirements.txt").read_text().splitlines()
    assert requirements[0] == f"mailstack[compose]=={__version__}"
    (cache,) = [step["with"] for step in WORKFLOW["steps"] if step.get("id") == "images"]
    assert "hashFiles('requirements.txt')" in cache["key"]
    assert [job["cache"]["key"]["files"] for job in JOBS if "cache" in job] == [["requirements.txt"]]
