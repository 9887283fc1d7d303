"""One `up` repairs a lab whose containers, networks, volumes or files were damaged, or says why it cannot."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from imap_tools.mailbox import BaseMailBox

from mailstack.actions import credentials, queues
from mailstack.config import files
from mailstack.engine import projects
from mailstack.lab import changes, proof
from mailstack.lab.running import RunningLab
from mailstack.model import SERVICES, Deadline
from mailstack.protocol import imap, trust
from mailstack.roles import Role
from tests import engines
from tests.docker.bad import Outcome, Traces, alone, run

pytestmark = pytest.mark.docker

LAB = f"repairs-{secrets.token_hex(3)}"  # another run may be at work on the same engine
CLIENT = docker.from_env()


@pytest.fixture(scope="module")
def traces() -> Iterator[Traces]:
    """Yield an owner and a runtime directory for this module."""
    with alone("repairs") as found:
        yield found


@pytest.fixture(scope="module")
def made(traces: Traces) -> None:
    """Bring up the lab that is broken and repaired again and again, with a mail for bob in it."""
    assert run(["up", "-n", LAB]).code == 0
    assert run(["send", "-n", LAB, "--to", "bob@example.com", "--subject", "kept"]).code == 0


@pytest.fixture
def lab(made: None) -> RunningLab:
    """Return the lab as it is now: a repair may have changed its ports."""
    return RunningLab(LAB, engines.here())


def _container(lab: RunningLab, service: str) -> Any:
    return CLIENT.containers.get(f"{projects.project_name(lab.name)}-{service}-1")


def _up() -> Outcome:
    outcome = run(["up", "-n", LAB])
    assert outcome.code == 0, outcome
    return outcome


def _whole(lab: RunningLab) -> None:
    """Check that the lab is proven on both paths, and has kept its mail."""
    lab = RunningLab(lab.name, lab.engine)
    assert proof.probe(lab).relayed
    assert [service.state for service in lab.services_with_missing()] == ["running"] * 3
    with _bob(lab) as box:
        assert len(box.uids('SUBJECT "kept"')) == 1


def _bob(lab: RunningLab) -> contextlib.AbstractContextManager[BaseMailBox]:
    """Open bob's mailbox."""
    address = "bob@example.com"
    return imap.mailbox(lab.endpoints["imaps"], trust.tls_context(lab.ca_file), address, lab.password(address))


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("action", ["stop", "pause", "kill", "remove"])
def test_a_container_that_was_stopped_paused_killed_or_removed(lab: RunningLab, service: str, action: str) -> None:
    container = _container(lab, service)
    if action == "remove":
        container.remove(force=True)
    else:
        getattr(container, action)()
    status = run(["status", "-n", LAB, "--json"])
    (state,) = [each["state"] for each in json.loads(status.out)["services"] if each["name"] == service]
    assert (status.code, state) == (1, {"pause": "paused", "remove": "missing"}.get(action, "exited"))
    assert "\nchanged   " in _up().out
    _whole(lab)


def test_mails_of_an_interrupted_check_are_removed_also_from_the_queues(lab: RunningLab) -> None:
    mark = f"check-{secrets.token_hex(6)}"
    change = changes.Change(lab.directory.path, "check", mark)
    change.begin()
    change._close()  # as the kernel does at the end of a killed process
    _container(lab, "dovecot").stop()
    sender = lab.one(Role.SENDER).container
    for recipient, text in (("bob@example.com", mark), ("bob@example.com", "stays")):
        letter = f"Message-ID: <{text}@example.com>\nSubject: {text}\n\nHello.\n".encode()
        assert lab.engine.execute(sender, ["sendmail", recipient], user="student", input=letter).code == 0
    _up()
    _whole(lab)
    where = queues.containers(RunningLab(LAB, lab.engine))
    assert run(["queue", "flush", "-n", LAB]).code == 0
    assert queues.wait(lab.engine, where, queues.CONDITIONS["empty"], Deadline.after(20))[0]
    with _bob(RunningLab(LAB, lab.engine)) as box:
        assert (len(box.uids(f'SUBJECT "{mark}"')), len(box.uids('SUBJECT "stays"'))) == (0, 1)


@pytest.mark.parametrize("network", ["mail", "edge"])
def test_a_network_that_was_removed(lab: RunningLab, network: str) -> None:
    found = CLIENT.networks.get(f"{projects.project_name(lab.name)}_{network}")
    for member in found.attrs["Containers"]:
        found.disconnect(member, force=True)
    found.remove()
    _up()
    _whole(lab)


def test_a_container_that_was_disconnected(lab: RunningLab) -> None:
    CLIENT.networks.get(f"{projects.project_name(lab.name)}_mail").disconnect(_container(lab, "sender"), force=True)
    status = run(["status", "-n", LAB])
    assert status.code == 1 and f"cut off   sender is not on {projects.project_name(lab.name)}_mail" in status.out
    _up()
    _whole(lab)


def test_everything_but_the_volumes_was_removed(lab: RunningLab) -> None:
    for service in SERVICES:
        _container(lab, service).remove(force=True)
    for network in ("mail", "edge"):
        CLIENT.networks.get(f"{projects.project_name(lab.name)}_{network}").remove()
    _up()
    _whole(lab)


def test_a_volume_that_was_removed_is_made_again_and_the_lab_works_without_its_mail(traces: Traces) -> None:
    name = f"volumes-{LAB}"
    assert run(["up", "-n", name]).code == 0
    lab = RunningLab(name, engines.here())
    for service in SERVICES:
        _container(lab, service).remove(force=True)
    for volume in ("mailboxes", "queue", "outbox", "sockets"):
        CLIENT.volumes.get(f"{projects.project_name(name)}_{volume}").remove()
    assert run(["up", "-n", name]).code == 0
    assert proof.probe(RunningLab(name, engines.here())).relayed
    assert run(["down", "-n", name]).code == 0


def test_a_full_mailbox_of_the_account_that_the_proof_uses(traces: Traces, tmp_path: Path) -> None:
    name = f"full-{LAB}"
    overlay = tmp_path / "full.yaml"
    overlay.write_text("x-mailstack: {accounts: {student@example.com: {quota: 8K}}}\n")
    assert run(["up", "-n", name, "-f", str(overlay)]).code == 0
    lab = RunningLab(name, engines.here())
    last, first = lab.defined.addresses()[-1], lab.defined.addresses()[0]
    context = trust.tls_context(lab.ca_file)
    with imap.mailbox(lab.endpoints["imaps"], context, last, lab.password(last)) as box:
        box.append(b"Subject: large\r\n\r\n" + b"x" * 6000)
        assert imap.is_full(box)
    up = run(["up", "-n", name])
    assert (up.code, "recreate" in up.out) == (0, False), up
    with imap.mailbox(lab.endpoints["imaps"], context, first, lab.password(first)) as box:
        assert box.uids() == []  # no notice that the first mail was returned
    assert run(["down", "-n", name]).code == 0


def test_postfix_that_was_used_while_dovecot_was_away(lab: RunningLab) -> None:
    _container(lab, "dovecot").kill()
    endpoint = lab.endpoints["submission"]
    for _ in range(3):  # each of its processes finds no SASL mechanism, and ends
        with socket.create_connection((endpoint.host, endpoint.port), 5) as connection:
            connection.recv(1)
    _container(lab, "dovecot").start()
    _up()
    _whole(lab)


def test_a_sender_with_another_password(lab: RunningLab) -> None:
    credentials.hand_to_sender(lab.engine, lab.one(Role.SENDER).container, "somebody:wrong\n")
    assert run(["status", "-n", LAB, "--probe"]).code != 0
    _up()
    _whole(lab)


@pytest.mark.parametrize("name", ["accounts", "relay", "postfix.cf", "dovecot.conf", "sender.pem", "ca.pem", "added"])
def test_a_file_that_was_removed(lab: RunningLab, name: str) -> None:
    path = lab.directory.files / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    _up()
    _whole(lab)


@pytest.mark.parametrize(("name", "text"), [("subnets.yaml", "}{"), ("files/postfix.pem", "no key\n"), ("changes", "")])
def test_a_file_that_was_damaged(lab: RunningLab, name: str, text: str) -> None:
    path = lab.directory.path / name
    if path.is_dir():
        shutil.rmtree(path)
    path.write_text(text)
    _up()
    assert path.is_dir() or path.read_text() != text
    _whole(lab)


def test_a_server_that_hangs(lab: RunningLab) -> None:
    script = 'for each in /proc/[0-9]*; do [ "$(cat $each/comm)" != auth ] || kill -STOP ${each#/proc/}; done'
    _container(lab, "dovecot").exec_run(["sh", "-c", script])
    _up()
    _whole(lab)


def test_a_network_that_was_joined_by_hand_is_named_kept_and_left_by_reset(lab: RunningLab) -> None:
    network = CLIENT.networks.create(f"joined-{LAB}", internal=True)
    try:
        network.connect(_container(lab, "sender"))
        for outcome in (run(["up", "-n", LAB]), run(["status", "-n", LAB])):
            assert outcome.code == 0 and f"sender: network joined-{LAB}" in outcome.out + outcome.err, outcome
        assert run(["up", "-n", LAB, "--reset"]).code == 0
        assert "joined" not in run(["status", "-n", LAB]).out
        _whole(lab)
    finally:
        for member in CLIENT.networks.list(names=[f"joined-{LAB}"], greedy=True)[0].attrs["Containers"]:
            network.disconnect(member, force=True)
        network.remove()


def test_all_its_files_were_removed(lab: RunningLab) -> None:
    shutil.rmtree(lab.directory.files)
    _up()
    _whole(lab)


def test_its_whole_directory_was_removed_and_its_mail_is_kept(lab: RunningLab) -> None:
    shutil.rmtree(lab.directory.path)
    assert "keeps its mail" in run(["status", "-n", LAB]).err
    _up()
    _whole(lab)


def test_a_container_that_kept_the_interim_name_of_an_interrupted_compose(lab: RunningLab) -> None:
    _container(lab, "sender").rename(f"824325cd8b32_{projects.project_name(LAB)}-sender-1")
    _up()
    assert _container(lab, "sender").status == "running"
    _whole(lab)


def test_a_mailbox_that_is_full_of_an_account_that_was_added_is_no_fault_of_the_lab(lab: RunningLab) -> None:
    assert run(["account", "add", "-n", LAB, "small@example.com", "--quota", "1K"]).code == 0
    _up()
    assert run(["account", "remove", "-n", LAB, "small@example.com"]).code == 0


def test_a_change_by_hand_that_breaks_the_lab_is_named_with_what_undoes_it(lab: RunningLab) -> None:
    script = "postconf -e 'virtual_transport = error:broken by hand' && postfix reload"
    assert lab.engine.execute(_container(lab, "postfix").id, ["sh", "-c", script]).code == 0
    outcome = run(["up", "-n", LAB])
    assert outcome.code != 0
    assert f"changed by hand: postfix: /etc/postfix/main.cf; `mailstack up -n {LAB} --reset` undoes it" in outcome.err
    assert run(["up", "-n", LAB, "--reset"]).code == 0
    _whole(lab)


@pytest.mark.parametrize("text", ["", '{"lab": "repairs", "owner'])
def test_a_damaged_record(lab: RunningLab, text: str) -> None:
    (lab.directory.path / "lab.json").write_text(text)
    _up()
    _whole(lab)


def test_a_change_by_hand_is_named_kept_and_undone_by_reset(lab: RunningLab) -> None:
    def greeting() -> str:
        with socket.create_connection((lab.endpoints["smtp"].host, lab.endpoints["smtp"].port), 5) as connection:
            return connection.recv(200).decode()

    script = "postconf -e 'smtpd_banner=by hand' && postfix reload"
    done = lab.engine.execute(_container(lab, "postfix").id, ["sh", "-c", script])
    assert done.code == 0, done
    assert "postfix: /etc/postfix/main.cf" in _up().err
    assert "/etc/postfix/main.cf" in run(["status", "-n", LAB]).out
    assert greeting().startswith("220 by hand")
    assert run(["up", "-n", LAB, "--reset"]).code == 0
    assert not greeting().startswith("220 by hand")
    assert "by hand" not in run(["status", "-n", LAB]).out
    _whole(lab)


def test_what_cannot_be_repaired_is_one_message_within_ten_seconds(lab: RunningLab) -> None:
    port = lab.endpoints["smtp"].port
    _container(lab, "postfix").remove(force=True)
    with socket.create_server(("127.0.0.1", port)):
        started_at = time.monotonic()
        outcome = run(["up", "-n", LAB])
        assert time.monotonic() - started_at < 10
    assert (outcome.code, len(outcome.messages)) == (3, 1) and f"127.0.0.1:{port} is in use" in outcome.messages[0]
    _up()
    _whole(lab)


def test_accounts_added_before_are_there_after_every_repair(lab: RunningLab) -> None:
    assert run(["account", "add", "-n", LAB, "dora@example.com"]).code == 0
    for service in ("postfix", "dovecot"):
        _container(lab, service).remove(force=True)
    _up()
    assert files.is_added(lab.directory.files, "dora@example.com")
    assert run(["send", "-n", LAB, "--to", "dora@example.com"]).code == 0
    assert run(["account", "remove", "-n", LAB, "dora@example.com"]).code == 0
