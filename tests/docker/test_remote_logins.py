"""Log in over SSH as `ssh` does: jump hosts, encrypted keys, an agent, passwords; with a real sshd and a real agent."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pty
import re
import secrets
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_ssh_private_key,
)

from mailstack.model import Deadline
from mailstack.secret import write_private
from mailstack.storage import directories
from tests.docker import nested
from tests.docker.remote import answer, left, mailstack

pytestmark = [pytest.mark.docker, pytest.mark.remote]

PASSPHRASE = secrets.token_urlsafe(12)


def key_of(machine: nested.Machine) -> Path:
    """Return the private key with which the machine's users log in."""
    assert machine.home
    return machine.home.parent / "id"


def port_of(machine: nested.Machine) -> str:
    """Return the port of this machine on which its sshd listens."""
    assert machine.home
    return (machine.home / ".ssh" / "config").read_text().split("Port ")[1].split()[0]


def at(machine: nested.Machine, home: Path, config: str, *known: str) -> nested.Machine:
    """Return the machine for a user with this ~/.ssh/config, whose known_hosts has it under these names."""
    assert machine.home
    ssh = home / ".ssh"
    ssh.mkdir(mode=0o700)
    key = (machine.home / ".ssh" / "known_hosts").read_text().partition(" ")[2]
    (ssh / "known_hosts").write_text("".join(f"{name} {key}" for name in known))
    (ssh / "config").write_text(config)
    return dataclasses.replace(machine, home=home)


def entry(name: str, machine: nested.Machine, *more: str, user: str = "tester") -> str:
    """Return a Host entry of ~/.ssh/config."""
    lines = (f"Host {name}", "HostName 127.0.0.1", f"Port {port_of(machine)}", f"User {user}", *more)
    return "\n  ".join(lines) + "\n"


def outside(machine: nested.Machine) -> str:
    """Return the name of the machine in known_hosts."""
    return f"[127.0.0.1]:{port_of(machine)}"


# ── the host's key, and the user's ────────────────────────────────────────────────────────────────────────────────────


def test_a_host_whose_key_is_not_known_is_refused_with_its_fingerprint(machine: nested.Machine) -> None:
    assert machine.home
    known = machine.home / ".ssh" / "known_hosts"
    kept = known.read_text()
    known.write_text("")
    try:
        said = mailstack(machine, "up", code=3).stderr
    finally:
        known.write_text(kept)
    assert "its host key is unknown: SHA256:" in said
    assert "~/.ssh/known_hosts" in said
    assert left(machine) == []


def test_a_host_whose_key_has_changed_is_refused_with_both_fingerprints(machine: nested.Machine) -> None:
    assert machine.home
    known = machine.home / ".ssh" / "known_hosts"
    kept = known.read_text()
    other = nested.public_key().split()[1]
    known.write_text(f"{kept.split()[0]} ssh-ed25519 {other}\n")
    try:
        said = mailstack(machine, "up", code=3).stderr
    finally:
        known.write_text(kept)
    assert "its host key has changed" in said
    assert said.count("SHA256:") == 2
    assert "ssh-keygen -R" in said
    assert left(machine) == []


def test_a_user_whose_key_is_refused_is_told(machine: nested.Machine) -> None:
    assert machine.home
    config = machine.home / ".ssh" / "config"
    kept = config.read_text()
    port = kept.split("Port ")[1].split()[0]
    config.write_text("")
    try:
        said = mailstack(machine, "up", host=f"ssh://tester@127.0.0.1:{port}", code=3).stderr
    finally:
        config.write_text(kept)
    assert f"ssh://tester@127.0.0.1:{port}: tester is refused" in said
    assert left(machine) == []


# ── hops ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def jump(machine: nested.Machine, hop: str = "", inner: str = "") -> str:
    """Return entries for a jump host and `inner`, the same sshd behind it. The jump user may not use the engine."""
    key = f"IdentityFile {key_of(machine)}"
    return entry("hop", machine, hop or key, user="stranger") + (
        f"Host inner\n  HostName 127.0.0.1\n  Port 22\n  User tester\n  {inner or key}\n  ProxyJump hop\n"
    )


def test_a_lab_comes_up_behind_a_hop(machine: nested.Machine, tmp_path: Path) -> None:
    there = at(machine, tmp_path, jump(machine), outside(machine), "127.0.0.1")
    try:
        mailstack(there, "up", "-n", "behind", host="inner")
        sessions = machine.run("ps", "-eo", "args=")
        assert "sshd-session: stranger" in sessions and "sshd-session: tester" in sessions
        mailstack(there, "send", "-n", "behind", host="inner")
    finally:
        mailstack(there, "down", "-n", "behind", host="inner")
    assert left(machine) == []


def test_a_hop_whose_key_is_not_known_is_refused_by_name(machine: nested.Machine, tmp_path: Path) -> None:
    there = at(machine, tmp_path, jump(machine), "127.0.0.1")
    said = mailstack(there, "version", host="inner", code=3).stderr
    assert "inner (on the way, hop): its host key is unknown: SHA256:" in said


def test_a_host_behind_a_hop_whose_key_is_not_known_is_refused(machine: nested.Machine, tmp_path: Path) -> None:
    there = at(machine, tmp_path, jump(machine), outside(machine))
    said = mailstack(there, "version", host="inner", code=3).stderr
    assert "mailstack: inner: its host key is unknown: SHA256:" in said


def test_a_hop_that_refuses_is_named(machine: nested.Machine, tmp_path: Path) -> None:
    there = at(machine, tmp_path, jump(machine, hop="IdentitiesOnly yes"), outside(machine), "127.0.0.1")
    said = mailstack(there, "version", host="inner", code=3).stderr
    assert "inner (on the way, hop): stranger is refused: none of your keys was accepted" in said


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def encrypted(machine: nested.Machine, tmp_path: Path) -> nested.Machine:
    """Return the machine for a user whose key for it is encrypted."""
    key = load_ssh_private_key(key_of(machine).read_bytes(), None)
    how = BestAvailableEncryption(PASSPHRASE.encode())
    write_private(tmp_path / "key", key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, how).decode())
    return at(machine, tmp_path, entry("far", machine, f"IdentityFile {tmp_path / 'key'}"), outside(machine))


def test_an_encrypted_key_without_an_agent_is_told(encrypted: nested.Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    said = mailstack(encrypted, "version", host="far", code=3).stderr
    assert "far: the key for it is encrypted\n" in said
    assert "ssh-add" in said


def test_the_passphrase_of_an_encrypted_key_is_asked_for(encrypted: nested.Machine) -> None:
    code, said = at_a_terminal(encrypted, "version", host="far", types=["wrong", PASSPHRASE])
    assert code == 0, said
    assert said.count("passphrase of the key for far: ") == 2
    assert PASSPHRASE not in said and "26." in said


def test_a_key_of_an_agent_will_do(
    machine: nested.Machine, encrypted: nested.Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent(tmp_path / "agent", key_of(machine)) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        assert answer(encrypted, "version", host="far")["engine"].startswith("26.")


def test_an_agent_without_a_key_for_it_does_not_help(
    machine: nested.Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = at(machine, tmp_path, entry("far", machine), outside(machine))
    with agent(tmp_path / "agent") as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        said = mailstack(there, "version", host="far", code=3).stderr
    assert "far: tester is refused: none of your keys was accepted" in said


def test_an_agent_with_too_many_keys_is_told(
    machine: nested.Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sshd(8) ends the connection after so many: sshd_config(5), MaxAuthTries."""
    there = at(machine, tmp_path, entry("far", machine), outside(machine))
    with agent(tmp_path / "agent", *keys_in(tmp_path, 8)) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        said = mailstack(there, "version", host="far", code=3).stderr
    assert "far: the connection was lost while logging in" in said
    assert "by IdentityFile, then it comes first" in said


def test_a_key_that_is_named_comes_before_the_many_of_an_agent(
    machine: nested.Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = at(machine, tmp_path, entry("far", machine, f"IdentityFile {key_of(machine)}"), outside(machine))
    with agent(tmp_path / "agent", *keys_in(tmp_path, 8)) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        assert answer(there, "version", host="far")["engine"].startswith("26.")


def test_a_key_file_that_is_not_there_is_left_out_as_ssh_does(machine: nested.Machine, tmp_path: Path) -> None:
    keys = ("IdentityFile ~/.ssh/nothing", f"IdentityFile {key_of(machine)}")
    there = at(machine, tmp_path, entry("far", machine, *keys), outside(machine))
    assert answer(there, "version", host="far")["engine"].startswith("26.")


def keys_in(directory: Path, count: int) -> list[Path]:
    """Create keys that no host accepts."""
    keys = [directory / f"key{number}" for number in range(count)]
    for key in keys:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return keys


@contextlib.contextmanager
def agent(path: Path, *keys: Path) -> Iterator[Path]:
    """Run an ssh-agent(1) with these keys."""
    environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL) as process:
        try:
            deadline = Deadline.after(5)
            while not path.exists() and not deadline.passed():
                select.select([], [], [], 0.01)
            if keys:
                subprocess.run(["ssh-add", *map(str, keys)], check=True, capture_output=True, env=environment)
            yield path
        finally:
            process.terminate()


# ── passwords ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def password(machine: nested.Machine) -> Iterator[str]:
    """Return the password of `tester` during these tests."""
    made = secrets.token_urlsafe(12)
    change = ["docker", "exec", "-i", machine.container.id, "chpasswd"]
    subprocess.run(change, input=f"tester:{made}\nstranger:{made}x\n", text=True, check=True)
    yield made
    machine.run("passwd", "--lock", "tester")
    machine.run("passwd", "--lock", "stranger")


@pytest.fixture
def keyless(machine: nested.Machine, tmp_path: Path, password: str) -> nested.Machine:
    """Return the machine for a user who has a password for it and no key."""
    return at(machine, tmp_path, entry("far", machine), outside(machine))


def test_a_password_is_asked_for_and_is_nowhere_but_there(keyless: nested.Machine, password: str) -> None:
    code, said = at_a_terminal(keyless, "up", "-n", "typed", host="far", types=[password])
    try:
        assert code == 0, said
        assert said.count("password for far: ") == 1 and password not in said
        assert holding(password) == []
        assert holding(str(keyless.home))  # which the daemon that keeps the connection has in its environment
        mailstack(keyless, "send", "-n", "typed", host="far")  # the connection is there: nobody is asked
    finally:
        mailstack(keyless, "down", "-n", "typed", host="far")
    assert left(keyless) == []


def test_a_wrong_password_is_asked_for_three_times_and_refused_in_the_end(
    keyless: nested.Machine, password: str
) -> None:
    code, said = at_a_terminal(keyless, "version", host="far", types=["wrong", "wrong", "wrong", "wrong"])
    assert code == 3
    assert said.count("password for far: ") == 3
    assert "far: tester is refused with this password" in said
    code, said = at_a_terminal(keyless, "version", host="far", types=["wrong", password])
    assert code == 0, said


def test_a_password_is_not_asked_for_where_there_is_no_terminal(keyless: nested.Machine) -> None:
    said = mailstack(keyless, "version", host="far", code=3).stderr
    assert "far: tester is refused: none of your keys was accepted" in said


def test_each_hop_is_given_its_own_password(machine: nested.Machine, tmp_path: Path, password: str) -> None:
    config = jump(machine, hop="IdentitiesOnly yes", inner="IdentitiesOnly yes")
    there = at(machine, tmp_path, config, outside(machine), "127.0.0.1")
    code, said = at_a_terminal(there, "version", host="inner", types=[f"{password}x", password])
    assert code == 0, said
    assert re.findall(r"password for (\w+): ", said) == ["hop", "inner"]


def test_who_is_turned_away_after_log_ins_that_failed_is_told_so(
    machine: nested.Machine, tmp_path: Path, password: str
) -> None:
    """By another sshd on the machine, which punishes as Debian's does, and sooner."""
    machine.container.reload()
    address = next(iter(machine.container.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]
    there = at(machine, tmp_path, f"Host far\n  HostName {address}\n  Port 2222\n  User tester\n", f"[{address}]:2222")
    options = ("PerSourcePenalties=authfail:60s min:30s", "PidFile=/run/strict.pid", "Port=2222")
    machine.run("/usr/sbin/sshd", *(word for option in options for word in ("-o", option)))
    try:
        code, said = at_a_terminal(there, "version", host="far", types=["wrong", "wrong", "wrong"])
    finally:
        machine.run("sh", "-c", "kill $(cat /run/strict.pid)")
    assert code == 3
    assert "far: SSH failed: " in said and "try again in a minute" in " ".join(said.split())


def holding(text: str) -> list[str]:
    """Return processes and files of labs or connections with `text` in their command line, environment or content."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                if text.encode() in (place / name).read_bytes():
                    found.append(str(place / name))
    for file in directories.root().rglob("*"):
        if file.is_file() and text.encode() in file.read_bytes():
            found.append(str(file))
    return found


def at_a_terminal(machine: nested.Machine, *words: str, host: str, types: list[str]) -> tuple[int, str]:
    """Run a command on a terminal and answer each question; return its exit code and all its output."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(
            sys.executable,
            [sys.executable, "-m", "mailstack", *words, "--host", host],
            {**{k: v for k, v in os.environ.items() if k != "SSH_AUTH_SOCK"}, "HOME": str(machine.home)},
        )
    said, asked, deadline = "", 0, Deadline.after(60)
    with contextlib.suppress(OSError):  # the terminal ends with who uses it
        while select.select([terminal], [], [], deadline.remaining())[0] and (data := os.read(terminal, 4096)):
            said += data.decode(errors="replace")
            if len(re.findall(r"(?:password|passphrase) [^:]*: ", said)) > asked:
                os.write(terminal, types[asked].encode() + b"\n")
                asked += 1
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said
