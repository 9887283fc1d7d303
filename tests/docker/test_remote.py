"""A lab on another machine, over SSH: a nested engine with a real sshd, which has neither Compose nor Python."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mailstack import hosts, state
from mailstack.model import PORTS
from mailstack.ports import candidates
from mailstack.secret import runtime_directory
from tests.docker import nested
from tests.docker.cuts import cuts
from tests.docker.remote import answer, bare, left, mailstack

pytestmark = [pytest.mark.docker, pytest.mark.remote]


@pytest.mark.parametrize("user", ["tester", "sudoer"])
def test_a_lab_comes_up_passes_every_check_and_goes_without_a_trace(machine: nested.Machine, user: str) -> None:
    up = answer(machine, "up", "-n", "far", host=user)
    assert up["verified"]["milliseconds"] > 0
    try:
        done = answer(machine, "check", "-n", "far", host=user)["checks"]
        assert [(check["id"], check["evidence"]) for check in done if check["verdict"] != "pass"] == []
        assert len(done) > 80
    finally:
        assert answer(machine, "down", "-n", "far", host=user) == {"removed": ["far"]}
    assert left(machine) == []


def test_the_experiment_is_performed_there(machine: nested.Machine, tmp_path: Path) -> None:
    document = answer(machine, "experiment", "--out", tmp_path / "report")
    assert [(step["id"], step["reason"]) for step in document["steps"] if step["verdict"] != "pass"] == []
    assert (tmp_path / "report" / "index.html").stat().st_size > 10_000
    assert left(machine) == []


def test_doctor_looks_the_host_over(machine: nested.Machine) -> None:
    found = {each["name"]: each for each in answer(machine, "doctor", host="sudoer")["findings"]}
    assert all(each["ok"] for each in found.values() if each["required"]), found
    assert found["engine"]["found"] == "/var/run/docker.sock on sudoer, as sudoer, by sudo"
    assert found["engine version"]["found"].startswith("26.")
    assert found["secrets there"]["found"] == "/dev/shm/mailstack-1001 on tmpfs"
    assert "GiB free at /var/lib/docker" in found["disk"]["found"]
    assert found["clock there"]["found"] == "as here"
    assert left(machine) == []


def test_a_secret_is_nowhere_there_but_in_its_directory_and_nowhere_at_all_afterwards(
    machine: nested.Machine,
) -> None:
    mailstack(machine, "up", "-n", "canary")
    try:
        files = runtime_directory() / hosts.parse("tester").key / "canary" / "files"
        password = next(
            line.split("}")[1].split(":")[0]
            for line in (files / "accounts").read_text().splitlines()
            if line.startswith("bob@")
        )
        mailstack(machine, "send", "-n", "canary", "--from", "bob@example.com", "--to", "alice@example.com")
        assert _places(machine, password) == [f"/dev/shm/mailstack-1000/{state.owner()}/canary/files/accounts"]
        assert password not in machine.run("sh", "-c", "cat /proc/*/cmdline /proc/*/environ | tr '\\0' '\\n'")
    finally:
        mailstack(machine, "down", "-n", "canary")
    assert _places(machine, password) == []
    assert left(machine) == []


def _places(machine: nested.Machine, text: str) -> list[str]:
    """The files on the machine that have `text` in them; the kernel's own are left out, as are others' memories."""
    found = machine.container.exec_run(
        ["grep", "-rlF", "--exclude-dir=proc", "--exclude-dir=sys", "-e", text, "/"], demux=True
    )
    return sorted(line for line in (found.output[0] or b"").decode().splitlines() if "/merged/" not in line)


def test_a_connection_that_is_cut_while_a_lab_comes_up_is_told_and_down_leaves_nothing(machine: nested.Machine) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # `python -m tests.docker.cuts` does more of them
    assert [str(cut) for cut in cuts(machine, 4, seed) if cut.bad] == []


def test_mails_are_seen_as_they_come_and_logs_and_shells_are_those_there(machine: nested.Machine) -> None:
    mailstack(machine, "up", "-n", "thin")
    try:
        words = ("inbox", "bob@example.com", "-n", "thin", "--watch", "--count", "1", "--timeout", "60s")
        with subprocess.Popen(
            [sys.executable, "-m", "mailstack", *words, "--host", "tester"],
            env={**os.environ, "HOME": str(machine.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching:
            assert watching.stderr and watching.stderr.readline().startswith("watching")
            mailstack(machine, "send", "-n", "thin", "--to", "bob@example.com", "--subject", "seen from afar")
            shown, _ = watching.communicate(timeout=70)
        assert watching.returncode == 0 and "seen from afar" in shown
        assert "to=<bob@example.com>" in mailstack(machine, "logs", "-n", "thin", "postfix").stdout
        # Its options before the service: what follows that is the program's.
        shell = ("shell", "-n", "thin", "--host", "tester")
        inside = mailstack(machine, *shell, "postfix", "postconf", "-h", "mail_version", host="").stdout
        assert inside.startswith("3.")
        mailstack(machine, *shell, "sender", "sh", "-c", "exit 7", host="", code=7)
    finally:
        mailstack(machine, "down", "-n", "thin")
    assert left(machine) == []


def test_a_lab_of_which_nothing_is_known_here_any_more_is_removed_by_its_labels(machine: nested.Machine) -> None:
    mailstack(machine, "up", "-n", "lost")
    machine.run("pkill", "-KILL", "-f", "^sshd-session")
    shutil.rmtree(runtime_directory() / hosts.parse("tester").key)
    assert mailstack(machine, "down", "-n", "lost").stdout == "removed: lost\n"
    assert left(machine) == []


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (["--mailstack-host", "tester"], {}),
        ([], {"DOCKER_HOST": "ssh://tester"}),
        ([], {"DOCKER_CONTEXT": "far"}),
    ],
)
def test_tests_have_their_mailboxes_there(
    machine: nested.Machine, tmp_path: Path, options: list[str], environment: dict[str, str]
) -> None:
    context(machine, "far", "ssh://tester")
    (tmp_path / "test_it.py").write_text(
        "from email.message import EmailMessage\n"
        "def test_it(mailstack_lab, mailbox, smtp_settings):\n"
        "    mail = EmailMessage()\n"
        "    mail['From'], mail['To'], mail['Subject'] = 'a@example.com', mailbox.address, 'over there'\n"
        "    mail.set_content('and back')\n"
        "    with smtp_settings.connect() as session:\n"
        "        session.send_message(mail)\n"
        "    assert mailbox.wait_for_message(subject='over there').journey().status == 'delivered'\n"
        "    assert mailstack_lab.engine.version()['Version'].startswith('26.')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "."],
        env={**os.environ, "HOME": str(machine.home), **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert left(machine) == []


def test_several_hosts_at_once_are_one_table_of_results(machine: nested.Machine, tmp_path: Path) -> None:
    with bare() as other:
        assert machine.home and other.home
        home = machine.home
        kept = {name: (home / ".ssh" / name).read_text() for name in ("config", "known_hosts")}
        theirs = (other.home / ".ssh" / "config").read_text().replace("Host tester", "Host other")
        (home / ".ssh" / "config").write_text(kept["config"] + theirs)
        known = (other.home / ".ssh" / "known_hosts").read_text()
        (home / ".ssh" / "known_hosts").write_text(kept["known_hosts"] + known)
        both = ("--host", "tester", "--host", "other")
        try:
            up = answer(machine, "up", "-n", "both", *both, host="")
            assert [(each["host"], each["code"]) for each in up["hosts"]] == [("tester", 0), ("other", 0)], up
            assert len({each["answer"]["verified"]["message_id"] for each in up["hosts"]}) == 2
            send = ("send", "-n", "both", "--to", "bob@example.com", "--body", "-")
            sent = mailstack(machine, *send, "--json", *both, host="", text="one for each").stdout
            assert [each["code"] for each in json.loads(sent)["hosts"]] == [0, 0]
            for host in ("tester", "other"):
                assert "one for each" in mailstack(machine, "read", "-n", "both", "bob@example.com", host=host).stdout
            results = tmp_path / "results.xml"
            mailstack(machine, "check", "-n", "both", "auth.plain-587", "--junit", results, *both, host="")
            assert sorted(each.name for each in tmp_path.iterdir()) == ["results-other.xml", "results-tester.xml"]
            said = mailstack(machine, "down", "-n", "both", *both, host="").stdout
            assert said.count("both") == 2 and "2 of 2 hosts: down is done" in said
            failed = mailstack(machine, "status", "-n", "both", *both, host="", code=2).stdout
            assert "there is no lab “both”" in failed and "0 of 2 hosts" in failed
            assert left(machine) == [] and left(other) == []
        finally:
            for name, text in kept.items():
                (home / ".ssh" / name).write_text(text)


# Listens on a port as soon as a lab's files are on the host: after the lab has chosen it, and before Compose wants it.
FASTER = """
use IO::Socket::INET;
until (-d $ARGV[0]) { select undef, undef, undef, 0.002 }
my $one = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[1], Listen => 1) or die;
sleep 60;
"""


def test_a_port_that_is_taken_on_the_host_is_not_chosen_also_when_somebody_was_faster(machine: nested.Machine) -> None:
    ports = list(itertools.islice(candidates("tester faster"), 1 + len(PORTS)))
    place = f"/dev/shm/mailstack-1000/{state.owner()}/faster/files"
    machine.container.exec_run(["perl", "-e", FASTER, "/dev/shm", str(ports[0])], detach=True)
    machine.container.exec_run(["perl", "-e", FASTER, place, str(ports[1])], detach=True)
    try:
        up = mailstack(machine, "up", "-n", "faster")
        assert f"somebody else was faster at 127.0.0.1:{ports[1]}" in up.stderr
        assert not set(ports[:2]) & {
            each["port"] for each in answer(machine, "status", "-n", "faster")["endpoints"].values()
        }
        mailstack(machine, "send", "-n", "faster")
        mailstack(machine, "down", "-n", "faster")
    finally:
        machine.run("pkill", "-f", "^perl -e")
    assert left(machine) == []


def test_a_context_of_dockers_that_leads_over_ssh_is_a_host(machine: nested.Machine) -> None:
    context(machine, "far", "ssh://tester")
    found = json.loads(mailstack(machine, "version", "--json", "--context", "far", host="").stdout)
    assert found["engine"].startswith("26.")
    assert "is not known" in mailstack(machine, "up", "--context", "near", host="", code=3).stderr
    assert left(machine) == []


def context(machine: nested.Machine, name: str, url: str) -> None:
    """A context of Docker's, for whoever has the machine."""
    assert machine.home
    meta = machine.home / ".docker" / "contexts" / "meta" / name
    meta.mkdir(parents=True, exist_ok=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": url}}}))
