"""The command that `explain` names for a failure repairs it: the mail arrives, or does when it is sent again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mailstack.actions import tracing
from mailstack.model import Deadline
from tests.docker.conftest import Labs
from tests.docker.faults import Mail, Stage
from tests.docker.test_lab import MAILSTACK, answer

pytestmark = pytest.mark.docker

SECONDS = 20.0
SETTLED = ("waiting", "bounced", "delivered")
OVERLAY = {
    "x-mailstack": {
        "accounts": {"dora@example.com": {"quota": "200K"}, "tiny@example.com": {"quota": "4K"}},
        "settings": {"dovecot": "quota_storage_grace = 0"},
    }
}


@dataclass(frozen=True)
class Broken:
    """What is broken in a lab, with the settings of a machine; the mail that fails of it; and how it is explained."""

    failure: str
    setting: str
    machine: str = ""
    settings: tuple[str, ...] = ()
    stopped: str = ""
    mail: Mapping[str, Any] = field(default_factory=dict)
    filled: int = 0  # mails that fill the mailbox first
    seconds: float = SECONDS  # that a mail may wait after the repair
    logged: str = ""  # the only line about it, which names no mail


CASES = (
    Broken("connection-refused", "relayhost", "sender", ("relayhost=[postfix]:2525",)),
    Broken("name-not-resolved", "relayhost", "sender", ("relayhost=[postfx]:587",)),
    Broken("ca-file-unusable", "smtp_tls_CAfile", "sender", ("smtp_tls_CAfile=/dev/null",)),
    Broken("starttls-required", "smtp_tls_security_level", "sender", ("smtp_tls_security_level=none",)),
    Broken(
        *("no-password-map", "smtp_sasl_password_maps", "sender", ("smtp_sasl_password_maps=",)),
        logged="fatal: specify a password table",
        seconds=90.0,  # service_throttle_time
    ),
    Broken("login-required", "smtp_sasl_auth_enable", "sender", ("smtp_sasl_auth_enable=no",)),
    Broken("too-large", "message_size_limit", "postfix", ("message_size_limit=20000",), mail={"body": "line\n" * 5000}),
    Broken("over-quota", "quota_storage_size", mail={"to": "dora@example.com", "body": "line\n" * 16000}, filled=2),
    Broken("over-quota", "quota_storage_size", mail={"to": "tiny@example.com", "body": "line\n" * 4000}),
    Broken("taken-for-local", "mydestination", "sender", ("mydestination=localhost, example.com",)),
    Broken("lab-closed", "default_transport", mail={"to": "bob@elsewhere.test"}),
    Broken("authentication-unavailable", "smtpd_sasl_path", "postfix", ("mail_name=Postfix",), stopped="dovecot"),
)


@pytest.fixture(scope="module")
def stage(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    overlay = tmp_path_factory.mktemp("repairs") / "quota.json"
    overlay.write_text(json.dumps(OVERLAY))
    with labs.one("repairs", [overlay]) as lab:
        yield Stage(lab)


def send(stage: Stage, to: str = "bob@example.com", body: str = "Hello.") -> str:
    """Send a mail from the sender; return its status once it is settled."""
    (sent,) = stage.send({to: ""}, sender="student@example.com", body=body)
    return status(stage, sent)


def status(stage: Stage, sent: Mail) -> str:
    """Return what became of a mail, or that it waits."""
    for journey in tracing.follow(stage.lab, sent.message_id, Deadline.after(SECONDS), since=stage.begun):
        assert journey is not None, "it is still on its way"
        if journey.status in SETTLED:
            return journey.status
    raise AssertionError("the lab ended")


def configure(stage: Stage, machine: str, settings: Sequence[str]) -> None:
    """Set Postfix settings, and make Postfix use them."""
    stage.run(machine, "postconf", *settings)
    stage.reload(machine)


def repair(stage: Stage, found: Mapping[str, Any], directory: Path) -> None:
    """Run the command of a repair where it says."""
    if found["run_on"]:
        stage.run(found["run_on"], "sh", "-c", found["command"])
        return
    path = f"{Path(MAILSTACK).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    subprocess.run(["sh", "-ec", found["command"]], cwd=directory, env=environment, check=True, capture_output=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.failure}-{case.filled}")
def test_the_command_that_is_named_repairs_the_failure(case: Broken, stage: Stage, tmp_path: Path) -> None:
    lab = stage.lab
    with stage.scene():
        for _ in range(case.filled):
            assert send(stage, **case.mail) == "delivered"
        if case.stopped:
            lab.engine.stop(stage.container(case.stopped))
        if case.machine:
            configure(stage, case.machine, case.settings)
        if case.logged:
            stage.send({"bob@example.com": ""}, sender="student@example.com")
            stage.heard(case.logged)
        else:
            assert send(stage, **case.mail) in ("waiting", "bounced")
    found = answer("explain", "-n", lab.name)
    assert [each["id"] for each in found["failures"]] == [case.failure]
    advice = found["mail"]["repair"]
    assert advice["setting"] == case.setting
    if found["mail"]["status"] == "waiting":
        (reason,) = answer("queue", "-n", lab.name)["reasons"]
        assert reason["fault"] == case.failure and reason["repair"] == advice
    repair(stage, advice, tmp_path)
    if advice["send_again"]:
        with stage.scene():
            assert send(stage, **case.mail) == "delivered"
    answer("queue", "-n", lab.name, "flush")
    assert answer("queue", "-n", lab.name, "wait", "--timeout", f"{case.seconds:g}s")["met"]
