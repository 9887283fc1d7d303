"""Faults of a host over SSH, caused for real: each has its own message, and leaves nothing on the host."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

from mailstack.model import Deadline
from tests.docker import nested
from tests.docker.remote import answer, bare, left, mailstack

pytestmark = [pytest.mark.docker, pytest.mark.remote]


@contextlib.contextmanager
def filled(machine: nested.Machine, place: str) -> Iterator[None]:
    """Fill a file system of the machine within `with`."""
    machine.run("dd", "if=/dev/zero", f"of={place}/filled", "bs=64K", code=1)  # to the end
    try:
        yield
    finally:
        machine.run("rm", f"{place}/filled")


def test_a_full_shared_memory_is_told_with_what_is_wanted_of_it(machine: nested.Machine) -> None:
    with filled(machine, "/dev/shm"):
        said = mailstack(machine, "up", "-n", "full", code=3).stderr
        assert (
            "tester: the lab's files cannot be put into /dev/shm/mailstack-hosted-1000: its shared memory is full"
            in said
        )
        assert "No space left on device" in said
        assert left(machine) == []


def test_a_full_disk_is_told() -> None:
    with bare(tmpfs={"/var/lib/docker": "size=2g"}) as small:
        with filled(small, "/var/lib/docker"):
            said = mailstack(small, "up", "-n", "full", code=3).stderr
            assert "the disk is full: /var/lib/docker on tester\n" in said
            assert "another process" not in said
            assert left(small) == []
        mailstack(small, "up", "-n", "full")
        with filled(small, "/var/lib/docker"):
            started_at = time.monotonic()
            said = mailstack(small, "up", "-n", "full", code=1).stderr
            assert "the disk is full: /var/lib/docker on tester\n" in said
            assert time.monotonic() - started_at < 20  # not the patience of a proof; here over SSH, and beside others
        mailstack(small, "up", "-n", "full")
        mailstack(small, "down", "-n", "full")
        assert left(small) == []


# An engine of long ago, as far as it says itself what it is: one that really is so old is not to be had.
OLD = """
use IO::Socket::UNIX;
unlink $ARGV[0];
my $listener = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 9) or die;
chmod 0666, $ARGV[0];
while (my $one = $listener->accept) {
  my $first = <$one>;
  while (<$one> =~ /\\S/) { }
  my ($code, $text) = $first =~ m{^GET /(version|info) }
    ? (200, '{"Version":"19.03.15","ApiVersion":"1.40","MinAPIVersion":"1.12","Os":"linux","Arch":"amd64"}')
    : (400, '{"message":"client version is too new. Maximum supported API version is 1.40"}');
  printf $one "HTTP/1.1 %d X\\r\\nContent-Length: %d\\r\\n\\r\\n%s", $code, length $text, $text;
  close $one;
}
"""


def test_an_engine_that_is_too_old_is_told_with_its_version(machine: nested.Machine) -> None:
    machine.container.exec_run(["perl", "-e", OLD, "/run/old.sock"], detach=True)
    # Which every log-in has for its environment (pam_env(8)).
    machine.run("sh", "-c", "echo DOCKER_HOST=unix:///run/old.sock > /etc/environment")
    try:
        said = mailstack(machine, "up", "-n", "old", code=3).stderr
    finally:
        machine.run("rm", "/etc/environment", "/run/old.sock")
        machine.run("pkill", "-f", "^perl -e")
    assert "mailstack: the Docker engine on tester is 19.03.15: 20.10 or newer is needed\n" in said
    assert "→ install Docker Engine 20.10 or newer there, or choose another host" in said
    assert left(machine) == []


@contextlib.contextmanager
def clock(machine: nested.Machine, says: str) -> Iterator[None]:
    """Replace date(1) on the host within `with`: its clock is this machine's, and cannot be set."""
    program = f"#!/bin/sh\n{says}\n"
    machine.run("sh", "-c", 'printf %s "$1" > /usr/local/bin/date; chmod 755 /usr/local/bin/date', "date", program)
    try:
        yield
    finally:
        machine.run("rm", "/usr/local/bin/date")


def test_a_clock_that_differs_is_told_by_doctor_and_up(machine: nested.Machine) -> None:
    with clock(machine, "echo 86400"):
        found = {each["name"]: each for each in answer(machine, "doctor")["findings"]}
        said = mailstack(machine, "up", "-n", "late").stderr
    mailstack(machine, "down", "-n", "late")
    assert not found["clock there"]["ok"] and found["clock there"]["found"].endswith(" s behind")
    assert "mailstack: the clock of tester is " in said and "certificates are not valid" in said
    with clock(machine, "echo $(($(/usr/bin/date +%s) + 60))"):
        said = mailstack(machine, "up", "-n", "early").stderr
    assert " s ahead: times in traces and mails are the host's; set both by NTP" in said
    said = mailstack(machine, "up", "-n", "early").stderr
    assert "the clock of" not in said
    mailstack(machine, "down", "-n", "early")
    assert left(machine) == []


def test_a_shell_that_says_nothing_is_not_waited_for_for_ever(machine: nested.Machine) -> None:
    with clock(machine, "exec sleep 1000"):
        said = mailstack(machine, "up", code=4).stderr
    assert "tester: its shell did not answer within 10 s" in said
    assert left(machine) == []


def test_a_port_of_this_machine_that_is_taken_is_told(machine: nested.Machine) -> None:
    mailstack(machine, "up", "-n", "taken")
    try:
        port = answer(machine, "status", "-n", "taken")["endpoints"]["imap"]["port"]
        machine.run("pkill", "-KILL", "-f", "^sshd-session")  # with the connection go its ports here
        with listening(port):
            said = mailstack(machine, "up", "-n", "taken", code=3).stderr
        assert f"127.0.0.1:{port} of this machine is needed for the lab, and in use" in said
        assert "stop what listens there" in said
        mailstack(machine, "send", "-n", "taken")
    finally:
        mailstack(machine, "down", "-n", "taken")
    assert left(machine) == []


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    """Listen on a port of this machine as soon as it is free, within `with`."""
    deadline = Deadline.after(10)
    while True:
        try:
            listener = socket.create_server(("127.0.0.1", port))
            break
        except OSError:
            assert not deadline.passed()
            time.sleep(0.01)
    with listener:
        yield


def test_a_user_who_may_not_use_the_engine_is_told(machine: nested.Machine) -> None:
    said = mailstack(machine, "up", host="stranger", code=3).stderr
    assert "stranger has no permission to use the Docker engine on stranger" in said
    assert left(machine) == []


def test_two_connections_of_one_user_get_to_the_engine_by_sudo_each_on_its_own(
    machine: nested.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What somebody else has left there: a socket at which nobody listens.
    place, old = "/dev/shm/mailstack-hosted-1001", "/dev/shm/mailstack-hosted-1001/engine-0"
    leave = f"use IO::Socket::UNIX; mkdir '{place}', 0700; IO::Socket::UNIX->new(Local => '{old}', Listen => 1)"
    machine.run("perl", "-e", leave)
    machine.run("chown", "-R", "sudoer:", place)
    machine.run("touch", "-d", "1 hour ago", old)
    mailstack(machine, "up", "-n", "first", host="sudoer")
    try:
        with monkeypatch.context() as other, tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            other.setenv("MAILSTACK_RUNTIME_DIR", directory)
            assert answer(machine, "version", host="sudoer")["engine"].startswith("26.")
            assert left(machine, there=False) == []
        assert len(answer(machine, "status", "-n", "first", host="sudoer")["services"]) == 3
        machine.run("pkill", "-KILL", "-f", "^perl -e")
        assert len(answer(machine, "status", "-n", "first", host="sudoer")["services"]) == 3
        machine.run("pkill", "-KILL", "-f", "^perl -e")
    finally:
        mailstack(machine, "down", "-n", "first", host="sudoer")
    assert left(machine) == []


def test_a_machine_without_perl_is_told_where_the_engine_is_reached_by_sudo(machine: nested.Machine) -> None:
    machine.run("mv", "/usr/bin/perl", "/usr/bin/away")
    try:
        said = mailstack(machine, "up", host="sudoer", code=3).stderr
    finally:
        machine.run("mv", "/usr/bin/away", "/usr/bin/perl")
    assert said.startswith("mailstack: sudoer: the bridge to its engine by sudo cannot be started\n")
    assert "perl: command not found" in said and "it needs Perl there" in said
    assert left(machine) == []


def test_a_machine_that_does_not_answer_is_told(machine: nested.Machine) -> None:
    said = mailstack(machine, "up", host="ssh://tester@127.0.0.1:1", code=3).stderr
    assert "cannot connect to 127.0.0.1:1: Connection refused" in said


def test_a_lab_expires_also_when_the_connection_was_cut_meanwhile(machine: nested.Machine) -> None:
    mailstack(machine, "up", "-n", "brief", "--ttl", "8s")
    cut, deadline = 0, Deadline.after(4)
    while not deadline.passed():  # whoever waits for the moment connects when `up` has ended
        cut += machine.container.exec_run(["pkill", "-KILL", "-f", "^sshd-session"])[0] == 0
        time.sleep(0.1)
    assert cut
    assert machine.engine.containers.list(ignore_removed=True)
    assert left(machine) == []


@pytest.fixture(scope="class")
def shared(machine: nested.Machine) -> Iterator[None]:
    """Bring up a lab that the tests of a class share: it outlives every connection."""
    mailstack(machine, "up")
    try:
        yield
    finally:
        mailstack(machine, "down", "--all")
    assert left(machine) == []


@pytest.mark.usefixtures("shared")
class TestCut:
    """A connection that is cut while something looks or judges; not told as checks, or steps, that have failed."""

    @pytest.mark.parametrize(
        ("words", "begins"),
        [
            (("check", "--host", "tester"), "running"),
            (("logs", "-f", "--host", "tester"), ""),
            (("shell", "--host", "tester", "sender", "sh", "-c", "echo there >&2; exec sleep 60"), "there"),
            (("experiment", "--host", "tester"), "1 of"),
        ],
    )
    def test_a_connection_that_is_cut_is_told_by_what_looks_or_judges(
        self, machine: nested.Machine, words: tuple[str, ...], begins: str
    ) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "mailstack", *words],
            env={**os.environ, "HOME": str(machine.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout and process.stderr
            stream = process.stderr if begins else process.stdout
            while not (line := stream.readline()).startswith(begins):
                assert line and process.poll() is None
            machine.run("pkill", "-KILL", "-f", "^sshd-session")
            _, said = process.communicate(timeout=60)
        assert (process.returncode, "mailstack: tester: the connection was lost" in said) == (3, True), said


def test_a_host_that_says_nothing_any_more_is_given_up_though_its_kernel_still_answers(machine: nested.Machine) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mailstack", "up", "-n", "silent", "--host", "tester"],
        env={**os.environ, "HOME": str(machine.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        while not process.stderr.readline().startswith("starting the containers"):
            assert process.poll() is None
        machine.run("pkill", "-STOP", "-f", "^sshd-session")
        begun = time.monotonic()
        try:
            _, said = process.communicate(timeout=60)
            seconds = time.monotonic() - begun
        finally:
            machine.run("pkill", "-KILL", "-f", "^sshd-session")
    assert (process.returncode, seconds < 15) == (3, True), (seconds, said)
    assert "mailstack: tester: the connection was lost" in said
    mailstack(machine, "down", "-n", "silent")
    assert left(machine) == []
