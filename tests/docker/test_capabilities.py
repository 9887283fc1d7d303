"""Every capability that is added to a container is needed: its service does not work without it."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from mailstack.actions import sending
from mailstack.definition import bundled
from mailstack.errors import MailstackError
from mailstack.lab import readiness
from mailstack.lab.running import RunningLab, project
from mailstack.model import SERVICES, Deadline
from mailstack.protocol import smtp
from mailstack.runner.local import Local, run_checked
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

GRACE_SECONDS = 10  # stop_grace_period in compose/lab.yaml


@functools.cache
def definition_of(service: str) -> dict[str, Any]:
    """Return a service of compose/lab.yaml, unchanged."""
    document = yaml.safe_load(bundled.compose_file("lab.yaml").read_text())
    found: dict[str, Any] = document["services"][service]
    return found


GIVEN_BACK = [(service, capability) for service in SERVICES for capability in definition_of(service)["cap_add"]]


SECONDS = 2.0  # until a server that does not work is given up
WORKING_SECONDS = 30.0  # for one that works: a mail takes a tenth of a second, and longer on a loaded machine


@pytest.fixture(scope="module")
def bare(labs: Labs) -> Iterator[RunningLab]:
    """Return a lab for capability tests, whose secrets belong to an ordinary user, as on most hosts."""
    with labs.one("bare") as running:
        for path in running.directory.files.iterdir():
            shutil.chown(path, 12345, 12345)
        yield running


def with_capabilities(lab: RunningLab, service: str, names: list[str], overlay: Path) -> None:
    """Recreate a service's container with these capabilities only."""
    overlay.write_text(f"services:\n  {service}:\n    cap_add: !override [{', '.join(names)}]\n")
    changed = dataclasses.replace(lab.state, files=(*lab.state.files, str(overlay)))
    runner = Local()
    there = project(lab.target, runner, changed, lab.directory)
    # With Dovecot Postfix, too: each smtpd(8) keeps its connection to Dovecot, and answers 454 once when it is gone.
    anew = [service, *(["postfix"] if service == "dovecot" else [])]
    up = there.command("up", "-d", "--no-build", "--no-deps", "--force-recreate", "--timeout", "2", *anew)
    run_checked(runner, up, deadline=Deadline.after(60))


def works(lab: RunningLab, service: str, seconds: float) -> None:
    """Raise unless the service does its work in time."""
    deadline = Deadline.after(seconds)
    if service == "sender":
        readiness.sender(lab, deadline)
        letter = sending.letter(lab.definition(), "student@example.com", ["bob@example.com"], "Works", "It works.", [])
        sending.send(lab, letter, "sender", deadline)
    else:
        readiness.transaction(lab, deadline, lambda: any(each.state == "exited" for each in lab.services()))
    if service == "dovecot":
        # It ends its processes, which run as other users, itself.
        container = docker.from_env().containers.get(lab.service(service).container)
        container.stop(timeout=GRACE_SECONDS)
        log = container.logs().decode()
        assert "Operation not permitted" not in log, log.splitlines()[-5:]


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_works_with_the_capabilities_that_it_has(bare: RunningLab, service: str, tmp_path: Path) -> None:
    every = definition_of(service)["cap_add"]
    try:
        with_capabilities(bare, service, every, tmp_path / "all.yaml")
        works(bare, service, WORKING_SECONDS)
    finally:
        with_capabilities(bare, service, every, tmp_path / "all.yaml")


@pytest.mark.parametrize(("service", "capability"), GIVEN_BACK)
def test_without_any_one_of_its_capabilities_a_service_does_not_work(
    bare: RunningLab, service: str, capability: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "ANSWER_SECONDS", SECONDS)
    every = definition_of(service)["cap_add"]
    try:
        with_capabilities(bare, service, [name for name in every if name != capability], tmp_path / "fewer.yaml")
        with pytest.raises((MailstackError, AssertionError, OSError)):
            works(bare, service, SECONDS)
    finally:
        with_capabilities(bare, service, every, tmp_path / "all.yaml")
