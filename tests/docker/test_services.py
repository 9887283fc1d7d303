"""Services by role: every command knows an overlay's own MTA, and a service without a role."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mailstack.actions import queues
from mailstack.definition import bundled
from mailstack.errors import HostError
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.model import Deadline
from mailstack.protocol import imap, smtp, trust
from mailstack.roles import Role
from tests import engines, forked
from tests.docker.conftest import Labs
from tests.docker.test_lab import MAILSTACK, answer, documented, mailstack, shape

pytestmark = pytest.mark.docker

OVERLAY = Path(__file__).parents[1] / "data" / "overlays" / "services.yaml"
EVERY = ["dovecot", "gateway", "postfix", "sender", "webmail"]
STRANGER = "somebody@example.net"
BOB = "bob@example.com"


@pytest.fixture(scope="module")
def up(labs: Labs) -> Iterator[dict[str, Any]]:
    """Bring up a lab with the overlay's services; return the document of `up`."""
    name = labs.new_name("services")
    yield answer("up", "-n", name, "-f", str(OVERLAY))
    labs.down(name)


@pytest.fixture
def lab(up: dict[str, Any]) -> RunningLab:
    """Return the lab."""
    return RunningLab(str(up["lab"]), engines.here())


def hand_in(lab: RunningLab, subject: str) -> str:
    """Send a mail for bob with a program in the gateway's container; return its Message-ID."""
    message = draft.new_message(sender=STRANGER, to=[BOB], subject=subject, body="By the gateway.\n")
    argv = ["sendmail", "-i", "-f", STRANGER, "--", BOB]
    result = lab.engine.execute(lab.service("gateway").container, argv, input=message.as_bytes())
    assert (result.code, result.stderr) == (0, "")
    return str(message["Message-ID"])


@contextlib.contextmanager
def stopped(lab: RunningLab, role: Role) -> Iterator[None]:
    """Stop the only service of a role within `with`."""
    container = lab.one(role).container
    lab.engine.stop(container)
    try:
        yield
    finally:
        lab.engine.start(container)


def test_up_and_status_name_every_service(up: dict[str, Any], lab: RunningLab) -> None:
    assert up["services"] == ["postfix", "dovecot", "sender", "gateway", "webmail"]
    document = answer("status", "-n", lab.name)
    assert [service["name"] for service in document["services"]] == EVERY
    assert {service["state"] for service in document["services"]} == {"running"}
    assert all(set(service) == set(documented("status")["services"][0]) for service in document["services"])
    shown = mailstack("status", "-n", lab.name)
    first = [line.split(" ", 1)[0] for line in shown.partition("\n\n")[0].splitlines()[2:]]
    assert [name for name in first if name] == EVERY


def test_a_role_is_read_from_the_containers_labels(lab: RunningLab) -> None:
    assert {service.name: service.role for service in lab.services()} == {
        "postfix": Role.SUBMISSION,
        "dovecot": Role.STORE,
        "sender": Role.SENDER,
        "gateway": Role.MTA,
        "webmail": None,
    }
    assert [service.name for service in lab.by_role(Role.MTA)] == ["gateway", "postfix", "sender"]
    assert [lab.one(role).name for role in (Role.SUBMISSION, Role.STORE, Role.SENDER)] == [
        "postfix",
        "dovecot",
        "sender",
    ]


def test_one_that_does_not_run_is_named(lab: RunningLab) -> None:
    with stopped(lab, Role.SENDER), pytest.raises(HostError, match=r"^sender of lab “.*” is not running \(exited\)$"):
        lab.one(Role.SENDER)
    with pytest.raises(HostError, match=r"gateway and postfix and sender of lab .* have the role mta"):
        lab.one(Role.MTA)


def test_logs_are_of_every_service_or_of_those_named(lab: RunningLab) -> None:
    document = answer("logs", "-n", lab.name)
    assert shape(document["logs"]["gateway"], [""]) == [] and sorted(document["logs"]) == EVERY
    assert answer("logs", "-n", lab.name, "webmail")["logs"] == {"webmail": ["webmail is ready"]}
    assert "webmail-1 | webmail is ready" in mailstack("logs", "-n", lab.name, "webmail", "gateway")
    assert "daemon started" in mailstack("logs", "-n", lab.name, "gateway")


def test_logs_are_followed(lab: RunningLab) -> None:
    argv = [MAILSTACK, "logs", "-n", lab.name, "--follow", "webmail"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout
        assert following.stdout.readline() == "webmail-1 | webmail is ready\n"
        following.terminate()


def test_a_shell_is_in_every_service(lab: RunningLab) -> None:
    assert mailstack("shell", "-n", lab.name, "gateway", "postconf", "-h", "relayhost") == "[postfix]:25\n"
    mailstack("shell", "-n", lab.name, "webmail", "sh", "-c", "exit 7", code=7)
    assert mailstack("shell", "-n", lab.name, "webmail", stdin="echo $0\n") == "bash\n"


@pytest.mark.parametrize("words", [("logs", "gateway", "imap"), ("shell", "imap")])
def test_a_service_that_is_not_there_is_refused_with_those_that_are(lab: RunningLab, words: tuple[str, ...]) -> None:
    result = subprocess.run(
        [MAILSTACK, words[0], "-n", lab.name, *words[1:]], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert f"lab “{lab.name}” has no service 'imap'" in result.stderr and ", ".join(EVERY) in result.stderr


def test_a_mail_in_the_gateways_queue_is_listed_tried_again_and_traced(lab: RunningLab) -> None:
    assert answer("queue", "-n", lab.name)["services"] == ["sender", "gateway", "postfix"]
    with stopped(lab, Role.SUBMISSION):
        message_id = hand_in(lab, "by another way")
        waited = answer("queue", "-n", lab.name, "gateway", "wait", "--until", "deferred")
        assert waited["met"] and waited["services"] == ["gateway"]
        assert [(each["service"], each["queue"]) for each in waited["mails"]] in (
            [("gateway", "deferred")],
            [("gateway", "active")],
        )
        seen = forked.run_text(["queue", "-n", lab.name])
        assert f"postfix of lab “{lab.name}” is not running: its queue is not included" in seen.stderr
        assert "gateway" in seen.stdout
        journey = answer("trace", "-n", lab.name, message_id, code=1)["journeys"][-1]
        assert [(hop["service"]) for hop in journey["hops"]] == ["gateway"]
        assert [each["status"] for each in journey["recipients"]] == ["waiting"]
        assert journey["recipients"][0]["next_try"]
    deadline = Deadline.after(20)
    while not smtp.greets(smtp.dial_to(lab.endpoints["smtp"]), b"QUIT\r\n"):
        assert not deadline.passed()
    assert len(answer("queue", "-n", lab.name, "flush")["done"]) == 1
    assert answer("queue", "-n", lab.name, "wait")["met"]
    with imap.mailbox(lab.endpoints["imaps"], trust.tls_context(lab.ca_file), BOB, lab.password(BOB)) as box:
        imap.wait_for(box, message_id, Deadline.after(20))
    journey = answer("trace", "-n", lab.name, message_id)["journeys"][-1]
    assert [hop["service"] for hop in journey["hops"]] == ["gateway", "postfix"]
    assert [each["status"] for each in journey["recipients"]] == ["delivered"]
    assert {"gateway", "postfix", "dovecot"} <= {event["service"] for event in journey["events"]}


def test_a_mail_in_the_gateways_queue_is_held_released_and_deleted(lab: RunningLab) -> None:
    gateway = {"gateway": lab.service("gateway").container}
    with stopped(lab, Role.SUBMISSION):
        hand_in(lab, "to be held")
        assert answer("queue", "-n", lab.name, "wait", "--until", "deferred")["met"]
        (entry,) = queues.of(lab.engine, gateway)
        for action in ("hold", "release", "delete"):
            done = answer("queue", "-n", lab.name, "gateway", action, entry.queue_id)["done"]
            assert done == [{"service": "gateway", "queue_id": entry.queue_id}]
        assert queues.of(lab.engine, gateway) == []


def test_what_a_service_of_an_overlay_reads_is_read_again_when_it_changes(lab: RunningLab, tmp_path: Path) -> None:
    alias = tmp_path / "alias.yaml"
    alias.write_text("x-mailstack: {aliases: {new@example.com: [bob@example.com]}}\n")
    begun = {name: started(lab, name) for name in EVERY}
    try:
        mailstack("up", "-n", lab.name, "-f", str(OVERLAY), "-f", str(alias))
        assert {name for name in EVERY if started(lab, name) != begun[name]} == {"gateway", "postfix"}
    finally:
        mailstack("up", "-n", lab.name, "-f", str(OVERLAY))


def test_a_store_of_another_name_takes_dovecots_place(labs: Labs, tmp_path: Path) -> None:
    standard = yaml.safe_load(bundled.compose_file("lab.yaml").read_text())["services"]["dovecot"]
    overlay = tmp_path / "store.yaml"
    overlay.write_text(f"services:\n  dovecot: !reset null\n  mailboxes: {json.dumps(standard)}\n")
    with labs.one("store", [overlay]) as lab:
        assert lab.one(Role.STORE).name == "mailboxes"
        mailstack("account", "add", "-n", lab.name, "dora@example.com")
        answer("send", "-n", lab.name, "--via", "sender", "--from", "student@example.com", "--to", "dora@example.com")
        mailstack("secrets", "rotate", "-n", lab.name)
        assert set(answer("logs", "-n", lab.name)["logs"]) == {"mailboxes", "postfix", "sender"}


def started(lab: RunningLab, name: str) -> str:
    """Return when a service's container was last started."""
    import docker

    return str(docker.from_env().containers.get(lab.service(name).container).attrs["State"]["StartedAt"])
