"""Readiness as a transaction, with a mail server of the test; and the start of the sender."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from mailstack.engine.engine import Engine
from mailstack.errors import CheckFailed, DeadlinePassed
from mailstack.lab import readiness
from mailstack.lab.running import RunningLab
from mailstack.lab.tools import Transaction
from mailstack.model import Countdown, Deadline
from mailstack.roles import Role
from tests.unit.mail_server import MailServer, serving
from tests.unit.world import NAME, PROJECT, World

pytestmark = pytest.mark.sockets


@pytest.fixture
def server(standing: World) -> Iterator[MailServer]:
    """Serve in place of the lab, with its certificates."""
    with serving(standing.directory.files / "postfix.pem") as made:
        yield made


@pytest.fixture
def lab(standing: World, server: MailServer) -> RunningLab:
    found = standing.directory.load()
    assert found
    return RunningLab(NAME, standing.tools.engine, state=replace(found, ports={**found.ports, **server.ports}))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask at each attempt whether a service has ended."""
    monkeypatch.setattr(readiness, "Deadline", SimpleNamespace(after=lambda seconds: Deadline.after(0)))


def test_a_mail_is_submitted_and_read_and_nothing_of_it_is_left(lab: RunningLab, server: MailServer) -> None:
    roles: list[Role] = []
    message_id, milliseconds = readiness.transaction(lab, Deadline.after(10), lambda: False, roles.append)
    assert {"mail FROM:<alice@example.com>", "rcpt TO:<bob@example.com>"} <= set(server.heard)
    assert message_id.startswith("<") and milliseconds > 0
    assert (server.mails, set(roles)) == ([], {Role.STORE, Role.SUBMISSION})


@pytest.mark.usefixtures("impatient")
def test_a_server_that_does_not_listen_yet_is_waited_for(lab: RunningLab, server: MailServer) -> None:
    server.silent = 3
    asked: list[int] = []

    def dead() -> bool:
        asked.append(server.silent)
        return False

    readiness.transaction(lab, Deadline.after(10), dead)
    assert (server.silent, len(asked)) == (0, 3)


@pytest.mark.usefixtures("impatient")
def test_a_service_that_has_ended_ends_the_wait(lab: RunningLab, server: MailServer) -> None:
    server.silent = 1000
    with pytest.raises(CheckFailed, match="did not come up"):
        readiness.transaction(lab, Deadline.after(10), lambda: server.silent < 999)


@pytest.mark.parametrize("path", [readiness.transaction, readiness.relayed])
def test_a_proof_that_was_cancelled_before_the_services_were_started_sends_nothing(
    path: Transaction, lab: RunningLab, server: MailServer
) -> None:
    countdown = Countdown(10)
    with pytest.raises(DeadlinePassed):
        path(lab, countdown, lambda: False, lambda role: countdown.cancel())
    assert (server.mails, server.heard) == ([], [])


def test_a_server_that_never_answers_is_named_with_its_port(lab: RunningLab) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        lab.state = replace(lab.state, ports={**lab.state.ports, "imap": port})
        with pytest.raises(DeadlinePassed, match=rf"no imap server answered at 127\.0\.0\.1:{port} within 0\.5 s"):
            readiness.transaction(lab, Deadline.after(0.5), lambda: False)


def test_a_sender_listens_when_its_log_says_so(standing: World) -> None:
    lab, roles = RunningLab(NAME, standing.tools.engine), list[Role]()
    assert readiness.sender(lab, Deadline.after(10), roles.append) == f"{PROJECT}-sender-1"
    assert roles == [Role.SENDER, Role.SUBMISSION]


@pytest.mark.parametrize(
    ("seconds", "error", "reason"),
    [(0.0, DeadlinePassed, "the sender's Postfix did not listen within 0 s"), (60.0, CheckFailed, "did not come up")],
)
def test_a_sender_whose_log_does_not_say_so_is_given_up(
    standing: World, monkeypatch: pytest.MonkeyPatch, seconds: float, error: type[Exception], reason: str
) -> None:
    monkeypatch.setattr(Engine, "prints", lambda engine, container, text, seconds: False)
    with pytest.raises(error, match=reason):
        readiness.sender(RunningLab(NAME, standing.tools.engine), Deadline.after(seconds))


def test_a_sender_that_has_ended_is_not_waited_for(standing: World) -> None:
    standing.api.containers_[f"{PROJECT}-sender-1"].state = "exited"
    with pytest.raises(CheckFailed, match="did not come up"):
        readiness.sender(RunningLab(NAME, standing.tools.engine), Deadline.after(60))
