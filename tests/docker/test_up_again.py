"""An `up` of a lab that is up: repeated, wrong, failing, interrupted or with changes. It loses no mail.

The tests share a lab, and each leaves it as it was: that is what most of them are about.
"""

from __future__ import annotations

import json
import secrets
import signal
import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docker.bad import BROKEN, MAILSTACK, Traces, alone, read_up_to, run

pytestmark = pytest.mark.docker

LAB = f"standing-{secrets.token_hex(3)}"  # another run may be at work on the same engine


@dataclass(frozen=True)
class Standing:
    """A lab that is up, with a mail to bob in it."""

    answer: Any  # of its `up`
    seconds: float  # how long that took
    traces: Traces


@pytest.fixture(scope="module")
def standing() -> Iterator[Standing]:
    with alone("again") as traces:
        begun = time.monotonic()
        up = answer("up", "-n", LAB)
        seconds = time.monotonic() - begun
        answer("send", "-n", LAB, "--to", "bob@example.com", "--subject", "from before")
        yield Standing(up, seconds, traces)


def answer(*argv: str) -> Any:
    """Run a command that succeeds; return its JSON document."""
    outcome = run([*argv, "--json"])
    assert outcome.code == 0, outcome
    return json.loads(outcome.out)


def subjects(address: str) -> list[str]:
    """Return the subjects of the mails in a mailbox, in their order."""
    return [mail["subject"] for mail in answer("inbox", "-n", LAB, address)["mails"]]


@pytest.fixture
def before(standing: Standing) -> list[str]:
    """Return the subjects of bob's mails before the test."""
    found = subjects("bob@example.com")
    assert found[0] == "from before"
    return found


def test_up_on_a_lab_that_is_up_is_quick_and_changes_nothing(standing: Standing, before: list[str]) -> None:
    containers = standing.traces.containers()
    begun = time.monotonic()
    again = answer("up", "-n", LAB)
    assert time.monotonic() - begun < standing.seconds
    assert again["endpoints"] == standing.answer["endpoints"]
    assert standing.traces.containers() == containers and len(containers) == 3
    assert subjects("bob@example.com") == before


def test_an_up_with_a_mistake_leaves_the_lab_that_is_up_alone(
    standing: Standing, before: list[str], tmp_path: Path
) -> None:
    containers = standing.traces.containers()
    overlay = tmp_path / "wrong.yaml"
    overlay.write_text("x-mailstack:\n  colour: red\n")
    assert run(["up", "-n", LAB, "-f", str(overlay)]).code == 2
    assert standing.traces.containers() == containers
    assert subjects("bob@example.com") == before


def still_as_it_was(standing: Standing, before: list[str]) -> None:
    """Check the lab's answers, and that a mail goes through it."""
    subject = f"from after {len(before)}"
    answer("send", "-n", LAB, "--via", "sender", "--to", "bob@example.com", "--subject", subject)
    assert subjects("bob@example.com") == [*before, subject]
    status = answer("status", "-n", LAB)
    assert status["endpoints"] == standing.answer["endpoints"]
    assert status["accounts"] == standing.answer["accounts"]
    assert [service["state"] for service in status["services"]] == ["running"] * 3


def test_an_up_that_fails_at_a_server_leaves_the_lab_as_it_was(
    standing: Standing, before: list[str], tmp_path: Path
) -> None:
    overlay = tmp_path / "broken.yaml"
    overlay.write_text(BROKEN)
    outcome = run(["up", "-n", LAB, "-f", str(overlay)])
    assert (outcome.code, len(outcome.messages), outcome.out) == (1, 1, "")
    assert "; dovecot exited with code " in outcome.messages[0]
    still_as_it_was(standing, before)


def test_an_up_that_fails_at_the_engine_leaves_the_lab_as_it_was(
    standing: Standing, before: list[str], tmp_path: Path
) -> None:
    overlay = tmp_path / "taken.yaml"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        overlay.write_text(
            "x-mailstack:\n  accounts:\n    dora@example.com: {}\n"
            f"services:\n  dovecot:\n    ports: ['127.0.0.1:{port}:4190']\n"
        )
        outcome = run(["up", "-n", LAB, "-f", str(overlay)])
    assert (outcome.code, len(outcome.messages), outcome.out) == (3, 1, "")
    assert f"127.0.0.1:{port} is in use" in outcome.messages[0]
    still_as_it_was(standing, before)


def test_an_up_that_is_interrupted_leaves_the_lab_as_it_was(
    standing: Standing, before: list[str], tmp_path: Path
) -> None:
    overlay = tmp_path / "more.yaml"
    overlay.write_text("x-mailstack:\n  accounts:\n    dora@example.com: {}\n")
    with subprocess.Popen(
        (MAILSTACK, "up", "-n", LAB, "-f", str(overlay)), stderr=subprocess.PIPE, text=True
    ) as process:
        read_up_to("starting the containers", process)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=90)[1]
    assert (process.returncode, "mailstack: interrupted" in err) == (130, True)
    still_as_it_was(standing, before)


# The last one, for it changes the lab.
def test_a_changed_definition_takes_effect_and_loses_no_mail(
    standing: Standing, before: list[str], tmp_path: Path
) -> None:
    overlay = tmp_path / "more.yaml"
    overlay.write_text("x-mailstack:\n  accounts:\n    dora@example.com: {}\n  limits:\n    message_size: 2M\n")
    again = answer("up", "-n", LAB, "-f", str(overlay))
    assert again["endpoints"] == standing.answer["endpoints"]
    assert set(again["accounts"]) == {*standing.answer["accounts"], "dora@example.com"}
    answer("send", "-n", LAB, "--to", "dora@example.com", "--subject", "to the new one")
    assert subjects("dora@example.com") == ["to the new one"]
    assert subjects("bob@example.com") == before
    with smtplib.SMTP("127.0.0.1", standing.answer["endpoints"]["smtp"]["port"]) as session:
        session.ehlo()
        assert session.esmtp_features["size"] == str(2 * 1024 * 1024)
