"""The command on a real lab: its answers match the documents."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from mailstack.checks import all_checks
from mailstack.lab.running import RunningLab
from tests import engines
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

MAILSTACK = str(Path(sys.executable).with_name("mailstack"))
ROOT = Path(__file__).parents[2]


def mailstack(*words: str, code: int = 0, stdin: str | None = None, env: dict[str, str] | None = None) -> str:
    """Run the command; return its standard output. Fail with the rest of its output on another exit code."""
    result = subprocess.run(
        [MAILSTACK, *words],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert result.returncode == code, f"{words}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def answer(*words: str, code: int = 0) -> Any:
    """Return the command's JSON document."""
    return json.loads(mailstack(*words, "--json", code=code))


@pytest.fixture(scope="module")
def up(labs: Labs) -> Iterator[dict[str, Any]]:
    """Bring up a lab by the command; return the document of `up`."""
    name = labs.new_name("lab")
    yield answer("up", "-n", name)
    labs.down(name)


@pytest.fixture
def name(up: dict[str, Any]) -> str:
    return str(up["lab"])


def documented(command: str, number: int = 0) -> Any:
    """Return an example of a command in docs/json.md, by default the first."""
    text = (ROOT / "docs" / "json.md").read_text().split(f"`mailstack {command} --json`", 1)[1]
    return json.loads(re.findall(r"```json\n(.*?)```", text, re.DOTALL)[number])


def shape(document: Any, example: Any) -> list[str]:
    """Return where a document differs from its example: keys, types of values, elements of lists."""
    if isinstance(example, bool | str):
        return [] if type(document) is type(example) else [f"{document!r} instead of {example!r}"]
    if isinstance(example, int | float):
        return [] if isinstance(document, int | float) else [f"{document!r} instead of {example!r}"]
    if isinstance(example, list):
        return [difference for element in document for difference in shape(element, example[0])]
    if set(document) != set(example):
        return [f"keys {sorted(document)} instead of {sorted(example)}"]
    return [f"{key}: {difference}" for key in example for difference in shape(document[key], example[key])]


def test_up_answers_as_documented(up: dict[str, Any]) -> None:
    assert shape(up, documented("up")) == []
    assert up["accounts"] == ["alice@example.com", "bob@example.com", "carol@example.org", "student@example.com"]
    assert Path(up["ca_file"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert up["verified"]["milliseconds"] > 0
    assert up["seconds"]["total"] >= up["seconds"]["compose"] + up["seconds"]["ready"]


def test_what_up_would_do_is_the_proof_alone_for_a_lab_that_is_up_and_answers_as_documented(name: str) -> None:
    plan = answer("up", "-n", name, "--dry-run")
    assert shape(plan, documented("up --dry-run")) == []
    assert [step["step"] for step in plan["steps"]] == ["prove"]
    down = answer("down", "-n", name, "--dry-run")
    assert shape(down, documented("down --dry-run")) == []
    assert [step["step"] for step in down["plans"][0]["steps"]] == ["compose down", "remove directory"]


def test_no_server_has_anything_to_warn_of(name: str) -> None:
    logged = {
        service.name: RunningLab(name, engines.here()).engine.logs(service.container)
        for service in RunningLab(name, engines.here()).services()
    }
    assert set(logged) == {"sender", "postfix", "dovecot"} and "Logged in" in logged["dovecot"]
    for service, text in logged.items():
        assert not re.findall(r".*\b(?:warning|error|fatal|panic):.*", text, re.IGNORECASE), service


def test_the_mail_that_proved_the_lab_is_in_no_mailbox(up: dict[str, Any], name: str) -> None:
    for address in up["accounts"]:
        mails = answer("inbox", "-n", name, address)["mails"]
        assert up["verified"]["message_id"] not in [mail["message_id"] for mail in mails]


def test_status_answers_as_documented(name: str) -> None:
    document = answer("status", "-n", name)
    example = documented("status")
    wanted = {key: example[key] for key in ("lab", "expires", "ca_file", "accounts")}
    assert shape({key: document[key] for key in wanted}, wanted) == []
    assert [service["name"] for service in document["services"]] == ["dovecot", "postfix", "sender"]
    assert all(set(service) == set(example["services"][0]) for service in document["services"])
    assert all(service["state"] == "running" for service in document["services"])
    assert set(document["endpoints"]) == set(documented("up")["endpoints"])


def test_status_shows_no_password(name: str) -> None:
    shown = mailstack("status", "-n", name) + mailstack("status", "-n", name, "--json")
    for address in ("alice@example.com", "relay"):
        assert mailstack("secrets", "reveal", "-n", name, address).strip() not in shown


def test_every_check_passes(name: str, tmp_path: Path) -> None:
    document = json.loads(mailstack("check", "-n", name, "--json", "--junit", str(tmp_path / "junit.xml")))
    assert shape(document, documented("check")) == []
    assert [c for c in document["checks"] if c["verdict"] != "pass"] == []
    assert [c["id"] for c in document["checks"]] == [check.id for check in all_checks()]
    assert document["passed"] == len(document["checks"]) >= 40
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == (str(document["passed"]), "0")


def test_checks_leave_nothing_in_the_mailboxes_and_nothing_outside(up: dict[str, Any], name: str) -> None:
    mailstack("check", "-n", name, "delivery.one-copy", "closed.sender", "closed.no-way-out-sender")
    for address in up["accounts"]:
        subjects = [mail["subject"] for mail in answer("inbox", "-n", name, address)["mails"]]
        assert not [s for s in subjects if "check" in s or "Undelivered" in s]
    lab = RunningLab(name, engines.here())
    assert not [thing for thing in lab.engine.leftovers(name, lab.state.owner) if "outside" in thing]


@pytest.mark.parametrize("via", ["sender", "submission"])
def test_a_mail_that_is_sent_is_listed_and_read(name: str, via: str, tmp_path: Path) -> None:
    (tmp_path / "bytes.bin").write_bytes(bytes(range(256)))
    words = ("--from", "student@example.com", "--to", "bob@example.com", "--subject", f"Grüße via {via}", "--via", via)
    sent = answer("send", "-n", name, *words, "--body", "Zeile 1\nžlutý 🐘", "--attach", str(tmp_path / "bytes.bin"))
    assert set(sent) == set(documented("send")) and list(sent["arrived"]) == ["bob@example.com"]
    listed = answer("inbox", "-n", name, "bob@example.com")
    assert shape(listed, documented("inbox")) == []
    (found,) = [mail for mail in listed["mails"] if mail["message_id"] == sent["message_id"]]
    assert (found["subject"], found["from"]) == (f"Grüße via {via}", "student@example.com")
    read = answer("read", "-n", name, "bob@example.com", str(found["uid"]))
    assert read["text"].splitlines()[:2] == ["Zeile 1", "žlutý 🐘"]
    assert [(a["name"], a["bytes"]) for a in read["attachments"]] == [("bytes.bin", 256)]


def test_the_body_can_come_from_standard_input(name: str) -> None:
    mailstack("send", "-n", name, "--to", "bob@example.com", "--subject", "piped", "--body", "-", stdin="from a pipe\n")
    assert answer("read", "-n", name, "bob@example.com")["text"].strip() == "from a pipe"


def test_a_mail_to_nobody_is_refused_with_the_server_s_words(name: str) -> None:
    result = subprocess.run(
        [MAILSTACK, "send", "-n", name, "--to", "nobody@example.com"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "550 5.1.1" in result.stderr and "Traceback" not in result.stderr


def test_what_a_mail_says_cannot_drive_the_terminal(name: str) -> None:
    evil = "x\x1b[2J\x1b]0;owned\x07\u202egnp.exe"
    mailstack("send", "-n", name, "--to", "bob@example.com", "--subject", "harmless", "--body", evil)
    shown = mailstack("read", "-n", name, "bob@example.com") + mailstack("inbox", "-n", name, "bob@example.com")
    assert not set(shown) & set("\x1b\x07\u202e")


def test_logs_are_shown_and_answered(name: str) -> None:
    assert "daemon started" in mailstack("logs", "-n", name, "postfix")
    document = answer("logs", "-n", name)
    assert sorted(document["logs"]) == ["dovecot", "postfix", "sender"]
    assert any("starting up" in line for line in document["logs"]["dovecot"])


def test_a_shell_s_exit_code_and_options_are_passed_on(name: str) -> None:
    assert "dovecot_config_version" in mailstack("shell", "-n", name, "dovecot", "doveconf", "-n")
    mailstack("shell", "-n", name, "postfix", "sh", "-c", "exit 7", code=7)


def test_the_configuration_is_what_runs(name: str) -> None:
    assert answer("config", "-n", name)["x-mailstack"]["mailname"] == "example.com"
    assert "x-mailstack:" in mailstack("config", "-n", name)


def test_doctor_and_version_answer_as_documented() -> None:
    findings = answer("doctor")
    assert shape(findings, documented("doctor")) == [] and findings["ready"]
    assert {"engine", "engine version", "Compose", "kernel", "disk", "base image", "ports"} <= {
        finding["name"] for finding in findings["findings"]
    }
    versions = answer("version")
    assert shape(versions, documented("version")) == [] and all(versions.values())


def test_tables_fit_eighty_columns_in_a_pipe(name: str) -> None:
    for words in (
        ("status",),
        ("up", "--dry-run"),
        ("down", "--dry-run"),
        ("inbox", "bob@example.com"),
        ("check", "--list"),
        ("check", "tls"),
    ):
        command, *rest = words
        shown = mailstack(command, *rest, *(("-n", name)))
        assert max(len(line) for line in shown.splitlines() if not line.startswith("CA ")) <= 80, words


def test_options_come_from_variables_too(name: str) -> None:
    assert json.loads(mailstack("status", "--json", env={"MAILSTACK_NAME": name}))["lab"] == name


def test_labs_live_side_by_side_and_down_all_takes_them_all(labs: Labs, up: dict[str, Any]) -> None:
    environment = {"MAILSTACK_OWNER": "somebody-else-for-a-test"}
    names = [labs.new_name("side") for _ in range(2)]
    for each in names:
        mailstack("up", "-n", each, env=environment)
    mailstack("send", "-n", names[0], "--to", "bob@example.com")
    assert answer("inbox", "-n", names[1], "bob@example.com")["mails"] == []
    # The labs in this runtime directory that belong to another owner stay.
    removed = json.loads(mailstack("down", "--all", "--json", env=environment))["removed"]
    assert set(names) <= set(removed) and up["lab"] not in removed
    assert answer("status", "-n", up["lab"])["lab"] == up["lab"]


def test_a_lab_with_an_expiry_goes_by_itself(labs: Labs) -> None:
    name = labs.new_name("ttl")
    mailstack("up", "-n", name, "--ttl", "3s")
    lab = RunningLab(name, engines.here())
    assert lab.state.expires != "never"
    deadline = time.monotonic() + 30
    while lab.engine.leftovers(name, lab.state.owner) or lab.directory.path.exists():
        assert time.monotonic() < deadline, "still there 30 s later"
        time.sleep(0.2)
