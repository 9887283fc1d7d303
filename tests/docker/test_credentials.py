"""Secrets are kept in separate files, are revealed one at a time, and take effect at once when they are rotated."""

from __future__ import annotations

import smtplib
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.actions import credentials, sending
from mailstack.actions.accounts import Accounts
from mailstack.config import files
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from mailstack.protocol import smtp, trust
from tests.docker.conftest import Labs
from tests.docker.search import Search, command, containers

pytestmark = pytest.mark.docker

SECONDS = 20.0


def _quiet(_: str) -> None:
    pass


def test_secrets_are_0600_in_a_0700_directory_on_tmpfs_and_gone_after_down(labs: Labs) -> None:
    with labs.one("files") as lab:
        directory = lab.directory.files
        with Accounts(lab) as accounts:
            accounts.add("added@example.com", fresh=True)
        directories = (directory, directory.parent, directory / "added")
        assert [stat.S_IMODE(path.stat().st_mode) for path in directories] == [0o700] * 3
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*") if path.is_file()}
        assert {"accounts", "relay", "postfix.pem", "added@example.com"} <= set(modes)
        assert {name: oct(mode) for name, mode in modes.items() if mode != 0o600} == {}
        assert file_system_of(directory) in ("tmpfs", "ramfs")
    assert not directory.parent.exists()


def file_system_of(path: Path) -> str:
    """Return the type of the file system of a path (proc(5), /proc/mounts)."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    held = [(place, kind) for place, kind in mounts if path.is_relative_to(place)]
    return max(held, key=lambda mount: len(mount[0]))[1]


# ── reveal and rotate ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("credentials") as running:
        yield running


def test_reveal_prints_one_secret_to_standard_output_and_to_nothing_else(lab: RunningLab) -> None:
    search = Search()
    search.of(lab)
    done = command("secrets", "reveal", "alice@example.com", "-n", lab.name)
    assert done.stdout.decode() == lab.password("alice@example.com").reveal() + "\n"
    assert done.stderr == b""
    done = command("secrets", "reveal", "relay", "-n", lab.name, "--json")
    assert search.in_places({"stdout": done.stdout, "stderr": done.stderr}) == ["relay in stdout"]


def log_in(lab: RunningLab, user: str, password: str) -> int:
    """Return the reply to AUTH on the submission port."""
    context = trust.tls_context(lab.ca_file)
    with smtp.Smtp(
        smtp.dial_to(lab.endpoints["submission"]), name="localhost", tls="starttls", context=context
    ) as session:
        try:
            return session.login(user, password)[0]
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code


def test_a_rotated_relay_password_holds_at_once_and_the_old_one_is_refused_with_535(lab: RunningLab) -> None:
    before = containers(lab)
    relay = files.read_relay(lab.directory.files)
    assert relay
    user, old = relay[0], relay[1].reveal()
    assert log_in(lab, user, old) == 235
    # Several times within a second: Dovecot tells a changed file by its time, in whole seconds.
    for _ in range(4):
        assert credentials.rotate(lab, _quiet) == user
        now = files.read_relay(lab.directory.files)
        assert now
        new = now[1].reveal()
        assert new != old
        assert (log_in(lab, user, old), log_in(lab, user, new)) == (535, 235)
        old = new
    assert command("secrets", "rotate", "-n", lab.name).returncode == 0
    assert log_in(lab, user, old) == 535
    letter = sending.letter(lab.definition(), "student@example.com", ["alice@example.com"], "After", "Rotated.", [])
    sent = sending.send(lab, letter, "sender", Deadline.after(SECONDS))
    assert list(sent.arrived) == ["alice@example.com"]
    assert containers(lab) == before
    assert {service.state for service in lab.services()} == {"running"}


def test_mails_leave_the_sender_between_and_after_rotations_without_a_pause(lab: RunningLab) -> None:
    for number in range(4):
        letter = sending.letter(lab.definition(), "student@example.com", ["bob@example.com"], f"{number}", "Text.", [])
        # Less than the thirty seconds after which a refused mail is tried again: none was.
        assert sending.send(lab, letter, "sender", Deadline.after(10)).arrived
        credentials.rotate(lab, _quiet)
