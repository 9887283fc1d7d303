"""The definitions work without the controller: `secrets init`, then plain `docker compose up`, by pytest-docker."""

from __future__ import annotations

import imaplib
import os
import secrets
import shlex
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import TypeVar

import pytest
import yaml
from pytest_docker.plugin import Services

from mailstack.config import files
from mailstack.definition import bundled
from mailstack.engine import compose, projects
from mailstack.images import base
from mailstack.lab import down
from mailstack.runner.local import Local
from tests import engines
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

T = TypeVar("T")

SECONDS = 30.0
OWNER = f"plain-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def secrets_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run `mailstack secrets init DIR`."""
    directory = tmp_path_factory.mktemp("plain") / "secrets"
    subprocess.run(
        [sys.executable, "-m", "mailstack", "secrets", "init", str(directory)], check=True, capture_output=True
    )
    return directory


@pytest.fixture(scope="session")
def docker_compose_command(secrets_directory: Path) -> str:
    """Return the command of Compose with two variables: pytest-docker passes the line to a shell."""
    binary = shlex.quote(str(compose.find(Local())))
    # Nothing else of the lab's comes from this test's own environment, but who its user is for the controller.
    unset = " ".join(f"-u {name}" for name in os.environ if name.startswith("MAILSTACK_"))
    own = f"MAILSTACK_OWNER={OWNER} MAILSTACK_SECRETS={shlex.quote(str(secrets_directory))}"
    return f"env {unset} {own} {binary}"


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    """Return the lab's own definition, unchanged."""
    return str(bundled.compose_file("lab.yaml"))


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    """Return a unique project name."""
    return f"plain-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    """Do nothing here: pytest-docker runs `up` before its own `try`, so a failed one would leave its parts."""
    return []


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    """Remove everything in any case."""
    return ["down --volumes --remove-orphans --timeout 2"]


@pytest.fixture(scope="session")
def plain_lab(docker_services: Services) -> Services:
    """Bring the lab up with plain Compose, which also builds its images, from cached layers."""
    base.ensure_base(engines.here(), Local(), lambda _: None)
    docker_services._docker_compose.execute("up --detach --build")
    return docker_services


def until(attempt: Callable[[], T], seconds: float = SECONDS) -> T:
    """Return the first result of `attempt`; try again while there is none or the server refuses, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if (given := attempt()) is not None:
                return given
        except (OSError, smtplib.SMTPException, imaplib.IMAP4.abort):
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, f"nothing after {seconds:g} s"
        time.sleep(0.02)  # a published port accepts before its server does: there is nothing else to wait for


def test_an_authenticated_mail_is_read_over_imap_without_the_controller(
    plain_lab: Services, secrets_directory: Path
) -> None:
    passwords = files.passwords(secrets_directory)
    context = ssl.create_default_context(cafile=str(secrets_directory / "ca.pem"))
    submission = plain_lab.port_for("postfix", 587)
    imaps = plain_lab.port_for("dovecot", 993)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "alice@example.com", "bob@example.com", "Plain Compose"
    message["Message-ID"] = f"<{secrets.token_hex(8)}@example.com>"
    message.set_content("Without the controller.\n")

    def submit() -> bool:
        with smtplib.SMTP("localhost", submission, timeout=10) as session:
            session.starttls(context=context)
            session.login("alice@example.com", passwords["alice@example.com"].reveal())
            session.send_message(message)
        return True

    assert until(submit)
    with imaplib.IMAP4_SSL("localhost", imaps, ssl_context=context, timeout=10) as box:
        box.login("bob@example.com", passwords["bob@example.com"].reveal())

        def arrived() -> bytes | None:
            box.select("INBOX")
            _, found = box.search(None, "HEADER", "Message-ID", message["Message-ID"])
            if not found[0]:
                return None
            _, parts = box.fetch(found[0].decode(), "(RFC822)")
            part = parts[0]
            return part[1] if isinstance(part, tuple) else None

        assert b"Without the controller." in (until(arrived) or b"")


def test_ports_are_published_on_the_loopback_alone_at_numbers_that_are_free(plain_lab: Services) -> None:
    containers = plain_lab._docker_compose.execute("ps --quiet").decode().split()
    published = engines.here().published(containers)
    assert published
    assert [binding for binding in published if not binding.startswith("127.0.0.1:")] == []


def test_the_mail_of_the_senders_user_arrives_through_its_relay(plain_lab: Services, secrets_directory: Path) -> None:
    subject = f"from the sender {secrets.token_hex(4)}"
    until(lambda: plain_lab._docker_compose.execute("exec -T sender healthcheck") or True)
    plain_lab._docker_compose.execute(
        f"exec -T --user student sender sh -c \"echo hello | mail -s '{subject}' carol@example.org\""
    )
    context = ssl.create_default_context(cafile=str(secrets_directory / "ca.pem"))
    with imaplib.IMAP4_SSL("localhost", plain_lab.port_for("dovecot", 993), ssl_context=context, timeout=10) as box:
        box.login("carol@example.org", files.passwords(secrets_directory)["carol@example.org"].reveal())

        def arrived() -> bytes | None:
            box.select("INBOX")
            _, found = box.search(None, "SUBJECT", f'"{subject}"')
            return found[0] or None

        assert until(arrived)


def test_neither_plain_compose_nor_the_controller_takes_what_is_the_other_s(plain_lab: Services, labs: Labs) -> None:
    """Also where both have one owner."""
    project = yaml.safe_load(bundled.compose_file("lab.yaml").read_text())["name"]
    assert not project.startswith(projects.project_name("")), "a lab of the controller's could be called so"
    with labs.one("beside") as lab:
        theirs, own = {service.container for service in lab.services()}, _containers(plain_lab)
        assert own and not own & theirs
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MAILSTACK_OWNER", OWNER)
            assert engines.here().labs(OWNER) == set()
            assert (
                down.remove_all(engines.here(), lambda _: None),
                down.remove_stale(engines.here(), lambda _: None),
            ) == (
                [],
                [],
            )
            assert OWNER not in engines.here().inventory("lab").owners() | engines.here().inventory("").owners()
        assert _containers(plain_lab) == own


def _containers(plain_lab: Services) -> set[str]:
    """Return the ids of the running containers."""
    return set(plain_lab._docker_compose.execute("ps --quiet --no-trunc").decode().split())
