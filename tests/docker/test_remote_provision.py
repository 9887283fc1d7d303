"""Provision a machine over SSH without an engine: a bare Debian with sshd, on which packages are really installed."""

from __future__ import annotations

import dataclasses
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

import pytest

from mailstack import state
from tests.docker import nested
from tests.docker.remote import answer, left, mailstack

pytestmark = [pytest.mark.docker, pytest.mark.remote]


@pytest.fixture(scope="module")
def bare(for_remote: None) -> Iterator[nested.Machine]:
    """Yield a machine without an engine, which is not provisioned."""
    nested.build(nested.BARE)
    with nested.machine(state.owner(), image=nested.BARE) as made:
        yield made


def installed(machine: nested.Machine) -> bool:
    """Return whether an engine is installed on the machine."""
    return bool(machine.run("sh", "-c", "command -v dockerd || :"))


def test_who_needs_an_engine_is_told_how_to_have_one(bare: nested.Machine) -> None:
    for command in ("doctor", "up"):
        done = mailstack(bare, command, host="sudoer", code=3)
        assert "no Docker engine answers on sudoer" in done.stdout + done.stderr
        assert "mailstack provision --host sudoer" in done.stdout + done.stderr


@pytest.mark.parametrize("user", ["sudoer", "root"])
def test_what_it_would_do_is_shown_and_not_done_where_nobody_can_be_asked(bare: nested.Machine, user: str) -> None:
    done = mailstack(bare, "provision", host=user, code=2)
    sudo = "" if user == "root" else "sudo "
    assert f"On {user} (Debian GNU/Linux 13 (trixie)), as {user}:" in done.stdout
    assert f"     {sudo}apt-get -oDPkg::Lock::Timeout=120 install -y --no-install-recommends docker.io" in done.stdout
    assert f"     {sudo}dockerd >> /var/log/mailstack-dockerd.log 2>&1 &\n" in done.stdout
    assert "--yes skips the confirmation" in done.stderr
    assert not installed(bare)


def test_a_users_name_that_the_host_tells_does_not_drive_the_terminal(bare: nested.Machine) -> None:
    program = '#!/bin/sh\n[ "$1" != -un ] || exec printf "a\\033[2Jb"\nexec /usr/bin/id "$@"\n'
    bare.run("sh", "-c", 'printf %s "$1" > /usr/local/bin/id; chmod 755 /usr/local/bin/id', "id", program)
    try:
        said = mailstack(bare, "provision", host="sudoer", code=2).stdout
    finally:
        bare.run("rm", "/usr/local/bin/id")
    assert "(Debian GNU/Linux 13 (trixie)), as a?[2Jb:\n" in said


def test_who_says_no_at_the_terminal_has_nothing_done(bare: nested.Machine) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "mailstack", "provision", "--host", "sudoer"],
            env={**os.environ, "HOME": str(bare.home)},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown = _until(b"[y/N]", terminal)
        terminal.write(b"n\n")
        said = _until(b"nothing was done", terminal)
        assert process.wait(30) == 130, said
    assert b"1. updating the package lists" in shown
    assert not installed(bare)


def _until(wanted: bytes, terminal: IO[bytes]) -> bytes:
    """Return the output of a terminal up to `wanted`."""
    shown = b""
    while wanted not in shown:
        assert select.select([terminal], [], [], 30)[0], shown
        shown += terminal.read(4096)
    return shown


def test_who_may_not_install_is_told_what_root_has_to_do(bare: nested.Machine) -> None:
    said = mailstack(bare, "provision", "--yes", host="stranger", code=3).stderr
    assert said.startswith("mailstack: stranger: installing or starting the Docker engine needs root")
    assert "run as root: apt-get" in said


def test_an_engine_is_installed_and_a_lab_comes_up_on_it(for_remote: None) -> None:
    nested.build(nested.BARE)
    with nested.machine(state.owner(), image=nested.BARE) as machine:
        # What is wrong there is told with the engine's own words; put right, only what is left to do is done.
        machine.run("sh", "-c", "cd /etc/docker; cp daemon.json right; echo '{' > daemon.json")
        failed = mailstack(machine, "provision", "--yes", host="sudoer", code=3)
        assert "mailstack: sudoer: the Docker engine exited right after its start" in failed.stderr
        assert "unable to configure the Docker daemon with file /etc/docker/daemon.json" in failed.stderr
        machine.run("mv", "/etc/docker/right", "/etc/docker/daemon.json")

        done = mailstack(machine, "provision", "--yes", host="sudoer")
        assert re.findall(r"^  \d\. (.+)", done.stdout, re.MULTILINE) == [
            "making /var/log/mailstack-dockerd.log",
            "starting the engine in the background",
        ]
        assert "sudoer is not in the group `docker` there: mailstack uses sudo to reach the engine" in done.stdout
        assert "nothing to do" in mailstack(machine, "provision", host="sudoer").stderr

        new = dataclasses.replace(machine, engine=nested.answering(machine.container, machine.socket))
        assert answer(machine, "up", "-n", "new", host="sudoer")["verified"]["milliseconds"] > 0
        mailstack(machine, "send", "-n", "new", host="sudoer")
        assert answer(machine, "down", "-n", "new", host="sudoer") == {"removed": ["new"]}
        assert left(new) == []
