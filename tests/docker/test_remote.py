"""A lab on another machine over SSH: a nested engine with a real sshd, without Compose and Python."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mailstack import state
from mailstack.model import PORTS, SERVICES, Deadline
from mailstack.network.ports import candidates
from mailstack.ssh import address
from mailstack.storage import directories
from tests.docker import nested
from tests.docker.cuts import cuts
from tests.docker.remote import answer, bare, left, mailstack
from tests.docker.search import Search, of_engine

pytestmark = [pytest.mark.docker, pytest.mark.remote]


def test_by_sudo_a_lab_comes_up_passes_checks_and_goes_without_a_trace(machine: nested.Machine) -> None:
    up = answer(machine, "up", "-n", "far", host="sudoer")
    assert up["verified"]["milliseconds"] > 0
    try:
        done = answer(machine, "check", "-n", "far", "auth", "closed", "relay", host="sudoer")["checks"]
        assert [(check["id"], check["evidence"]) for check in done if check["verdict"] != "pass"] == []
        assert len(done) > 35
    finally:
        assert answer(machine, "down", "-n", "far", host="sudoer") == {"removed": ["far"]}
    assert left(machine) == []


# As one would type it.
CHAIN = """
mailstack up --host tester && echo up >&2 &&
mailstack check --host tester --junit "$1/results.xml" && echo check >&2 &&
mailstack experiment --host tester --out "$1/report" && echo experiment >&2 &&
mailstack down --host tester && echo down >&2
"""


def test_up_check_experiment_and_down_one_after_the_other_all_end_well_and_leave_nothing(
    machine: nested.Machine, tmp_path: Path
) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", CHAIN, "chain", tmp_path],
        env={**os.environ, "HOME": str(machine.home), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    ended = [line for line in done.stderr.splitlines() if line in ("up", "check", "experiment", "down")]
    assert (done.returncode, ended) == (0, ["up", "check", "experiment", "down"]), done.stdout[-3000:] + done.stderr
    results = ElementTree.parse(tmp_path / "results.xml").getroot()
    assert len(list(results.iter("testcase"))) > 80
    assert [*results.iter("failure"), *results.iter("skipped")] == []
    document = json.loads((tmp_path / "report" / "experiment.json").read_text())
    assert [(step["id"], step["reason"]) for step in document["steps"] if step["verdict"] != "pass"] == []
    assert (tmp_path / "report" / "index.html").stat().st_size > 10_000
    assert left(machine) == []


def test_what_else_there_is_of_commands_works_there_as_here(
    machine: nested.Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = ("-n", "far")
    overlay = tmp_path / "more.yaml"
    overlay.write_text("x-mailstack: {domains: {shop.test: {}}, accounts: {carol@shop.test: {}}}\n")
    mailstack(machine, "up", *lab, "-f", overlay)
    try:
        sent = answer(machine, "send", *lab, "--to", "carol@shop.test", "--subject", "from afar")
        assert "from afar" in mailstack(machine, "read", *lab, "carol@shop.test").stdout
        mailstack(machine, "reply", *lab, "carol@shop.test", "--body", "and back")
        assert "and back" in mailstack(machine, "read", *lab, sent["from"]).stdout
        journeys = answer(machine, "trace", *lab, sent["message_id"])["journeys"]
        assert [journey["status"] for journey in journeys] == ["delivered"]
        assert answer(machine, "queue", *lab)["mails"] == []
        load = ("--messages", "5", "--connections", "1", "--mailboxes", "1")
        assert answer(machine, "load", *lab, *load)["delivered"] == 5
        said = [exchange["code"] for exchange in answer(machine, "dialogue", *lab)["exchanges"]]
        assert {220, 235, 354, 221} <= set(said)

        mailstack(machine, "account", "add", *lab, "dora@shop.test")
        mailstack(machine, "send", *lab, "--to", "dora@shop.test")
        mailstack(machine, "account", "remove", *lab, "dora@shop.test")
        every = {each["address"] for each in answer(machine, "account", "list", *lab)["accounts"]}
        assert "carol@shop.test" in every and "dora@shop.test" not in every

        variables = answer(machine, "env", *lab, "--account", "carol@shop.test")["variables"]
        mailstack(machine, "secrets", "rotate", *lab)
        with smtplib.SMTP(variables["SMTP_HOST"], int(variables["SMTP_PORT"])) as session:
            session.starttls(context=ssl.create_default_context(cafile=variables["MAIL_CA_FILE"]))
            with pytest.raises(smtplib.SMTPAuthenticationError):
                session.login(variables["SMTP_USER"], variables["SMTP_PASSWORD"])
            session.login(variables["SMTP_USER"], answer(machine, "env", *lab)["variables"]["SMTP_PASSWORD"])
        mailstack(machine, "send", *lab, "--via", "sender")

        monkeypatch.setenv("MAILSTACK_HOST", "tester")
        assert "carol@shop.test" in answer(machine, "status", *lab, host="")["accounts"]
    finally:
        mailstack(machine, "down", *lab, host="tester")
    assert left(machine) == []


def test_doctor_looks_the_host_over(machine: nested.Machine) -> None:
    found = {each["name"]: each for each in answer(machine, "doctor", host="sudoer")["findings"]}
    assert all(each["ok"] for each in found.values() if each["required"]), found
    assert found["engine"]["found"] == "/var/run/docker.sock on sudoer, as sudoer, by sudo"
    assert found["engine version"]["found"].startswith("26.")
    assert found["secrets there"]["found"] == "/dev/shm/mailstack-hosted-1001 on tmpfs"
    assert "GiB free at /var/lib/docker" in found["disk"]["found"]
    assert found["clock there"]["found"] == "as here"
    assert left(machine) == []


def test_no_secret_is_anywhere_there_but_in_its_file_and_nowhere_at_all_afterwards(machine: nested.Machine) -> None:
    lab, search = ("-n", "canary"), Search()
    place = f"/dev/shm/mailstack-hosted-1000/{state.owner()}/canary/files"
    with processes(machine) as seen:
        mailstack(machine, "up", *lab)
        try:
            (here,) = directories.root().glob("engine-*/canary/files")
            search.in_directory(here)
            mailstack(machine, "account", "add", *lab, "dora@example.com")
            mailstack(machine, "secrets", "rotate", *lab)
            search.in_directory(here)
            mailstack(machine, "send", *lab, "--from", "dora@example.com", "--to", "alice@example.com")
            mailstack(machine, "send", *lab, "--via", "sender")
            mailstack(machine, "check", *lab, "auth", "tls")
            found = holding(machine, search)
            secret = ("accounts", "added/dora@example.com", "relay", "student", *(f"{each}.pem" for each in SERVICES))
            assert found == sorted(f"{place}/{name}" for name in secret)
            modes = machine.run("find", "/dev/shm/mailstack-hosted-1000", "-printf", "%y %m %P\\n").splitlines()
            assert len(modes) > 12 and [mode for mode in modes if not mode.startswith(("d 700 ", "f 600 "))] == []
            containers = [each.id for each in machine.engine.containers.list()]
            assert len(containers) == 3 and search.in_places(of_engine(containers, machine.engine.api)) == []
        finally:
            mailstack(machine, "down", *lab)
    assert b"dockerd" in seen and any(word.startswith(b"SSH_CLIENT=") for word in seen)  # it does see something
    assert search.in_places({"a process": b"\n".join(seen)}) == []
    assert holding(machine, search) == []
    assert left(machine) == []


@contextlib.contextmanager
def processes(machine: nested.Machine) -> Iterator[set[bytes]]:
    """Yield the arguments and environments of the processes there, read repeatedly within `with`."""
    machine.run("touch", "/run/looking")
    look = "while [ -e /run/looking ]; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; sleep 0.02; done"
    words: set[bytes] = set()

    def read() -> None:
        command = ["docker", "exec", machine.container.id, "sh", "-c", look]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert isinstance(process.stdout, io.BufferedReader)
            rest = b""
            while chunk := process.stdout.read1(1 << 16):
                *whole, rest = (rest + chunk).split(b"\0")
                words.update(whole)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield words
    finally:
        machine.run("rm", "/run/looking")
        reader.join()


def holding(machine: nested.Machine, search: Search) -> list[str]:
    """Return the files there that contain a secret, without /proc, /sys and the merged views of containers."""
    grep = ("grep", "-rlaF", "--exclude-dir=proc", "--exclude-dir=sys", "-f", "-", "/")
    with search.patterns() as patterns:
        done = subprocess.run(
            ["docker", "exec", "-i", machine.container.id, *grep], stdin=patterns, capture_output=True, check=False
        )
    return sorted(line for line in done.stdout.decode().splitlines() if "/merged/" not in line)


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
    (lab,) = directories.root().glob("engine-*/lost")
    for known in (directories.root() / address.parse("tester").key, lab.parent):
        shutil.rmtree(known)
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
            assert interrupted(machine, other, "up", "-n", "both", *both) == 130
            assert left(machine) == [] and left(other) == []
        finally:
            for name, text in kept.items():
                (home / ".ssh" / name).write_text(text)


def interrupted(machine: nested.Machine, other: nested.Machine, *words: str) -> int:
    """Send a command Ctrl-C after it has begun to create something on both machines; return its exit code."""
    with subprocess.Popen(
        [sys.executable, "-m", "mailstack", *words],
        env={**os.environ, "HOME": str(machine.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = Deadline.after(30)
        while not all(each.engine.containers.list(all=True, ignore_removed=True) for each in (machine, other)):
            assert process.poll() is None and not deadline.passed()
        process.send_signal(signal.SIGINT)
        return process.wait(60)


# Listens on a port as soon as a lab's files are on the host: after the lab has chosen it, and before Compose wants it.
FASTER = """
use IO::Socket::INET;
until (-d $ARGV[0]) { select undef, undef, undef, 0.002 }
my $one = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[1], Listen => 1) or die;
sleep 60;
"""


def test_a_port_that_is_taken_on_the_host_is_not_chosen_also_when_somebody_was_faster(machine: nested.Machine) -> None:
    ports = list(itertools.islice(candidates("tester faster"), 1 + len(PORTS)))
    place = f"/dev/shm/mailstack-hosted-1000/{state.owner()}/faster/files"
    machine.container.exec_run(["perl", "-e", FASTER, "/dev/shm", str(ports[0])], detach=True)
    machine.container.exec_run(["perl", "-e", FASTER, place, str(ports[1])], detach=True)
    try:
        up = mailstack(machine, "up", "-n", "faster")
        assert f"another process has taken 127.0.0.1:{ports[1]}" in up.stderr
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
    """Create a Docker context for the user of the machine."""
    assert machine.home
    meta = machine.home / ".docker" / "contexts" / "meta" / name
    meta.mkdir(parents=True, exist_ok=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": url}}}))
