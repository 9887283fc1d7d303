"""Least privilege: the privileges that each container is denied, and that it works without them."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from mailstack.definition import bundled
from mailstack.lab import readiness
from mailstack.lab.running import RunningLab
from mailstack.model import PORTS, SERVICES, Deadline
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

GRACE_SECONDS = 10  # stop_grace_period in compose/lab.yaml
SERVER = {
    "postfix": "/usr/lib/postfix/sbin/master -i",
    "dovecot": "/usr/sbin/dovecot -F",
    "sender": "init",  # stack/sender/entrypoint; Postfix is its child
}


@functools.cache
def definition_of(service: str) -> dict[str, Any]:
    """Return a service of compose/lab.yaml, unchanged."""
    document = yaml.safe_load(bundled.compose_file("lab.yaml").read_text())
    found: dict[str, Any] = document["services"][service]
    return found


GIVEN_BACK = [(service, capability) for service in SERVICES for capability in definition_of(service)["cap_add"]]


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return a lab for all tests that change nothing."""
    with labs.one("hardened") as running:
        yield running


def inside(lab: RunningLab, service: str, *argv: str) -> str:
    """Return the output of a program in a service's container."""
    result = lab.engine.execute(lab.service(service).container, argv)
    assert result.code == 0, result.stderr
    return result.stdout


def inspected(lab: RunningLab, service: str) -> dict[str, Any]:
    """Return the engine's description of a service's container."""
    attributes: dict[str, Any] = docker.from_env().containers.get(lab.service(service).container).attrs
    return attributes


# ── what is denied ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("service", SERVICES)
def test_all_capabilities_are_dropped_but_those_that_the_definition_names(lab: RunningLab, service: str) -> None:
    host = inspected(lab, service)["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    given = {name.removeprefix("CAP_") for name in host["CapAdd"]}
    assert given == set(definition_of(service)["cap_add"])
    # What the kernel says of the first process counts, not what the engine was asked for (capabilities(7)).
    numbers = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7, "SYS_CHROOT": 18}
    status = inside(lab, service, "cat", "/proc/1/status")
    sets = dict(re.findall(r"^Cap(\w+):\s+([0-9a-f]+)$", status, re.M))
    assert int(sets["Bnd"], 16) == int(sets["Eff"], 16) == sum(1 << numbers[name] for name in given)


@pytest.mark.parametrize("service", SERVICES)
def test_no_process_can_gain_privileges_and_the_root_file_system_is_read_only(lab: RunningLab, service: str) -> None:
    host = inspected(lab, service)["HostConfig"]
    assert not host["Privileged"]
    assert host["ReadonlyRootfs"]
    assert any(option.startswith("no-new-privileges") and "false" not in option for option in host["SecurityOpt"])
    assert "NoNewPrivs:\t1" in inside(lab, service, "cat", "/proc/1/status")
    tried = lab.engine.execute(lab.service(service).container, ["touch", "/usr/local/bin/mine"])
    assert "Read-only file system" in tried.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_neither_the_engines_socket_nor_a_device_nor_the_hosts_namespaces_are_in_the_container(
    lab: RunningLab, service: str
) -> None:
    attributes = inspected(lab, service)
    host = attributes["HostConfig"]
    assert not [mount for mount in attributes["Mounts"] if "docker" in mount["Destination"]]
    assert "sock" not in inside(lab, service, "sh", "-c", "ls /run /var/run/ | grep docker || true")
    # Bind mounts are single files of the lab's directory; none can be written.
    bound = [mount for mount in attributes["Mounts"] if mount["Type"] == "bind"]
    assert bound
    assert {Path(mount["Source"]).parent for mount in bound} == {lab.directory.files}
    assert not [mount["Destination"] for mount in bound if mount["RW"]]
    assert not host["Devices"]
    assert [host[kind] for kind in ("PidMode", "UTSMode", "UsernsMode")] == ["", "", ""]
    assert host["IpcMode"] in ("private", "shareable")  # the second is older engines' name for the container's own


# ── how much they may take ─────────────────────────────────────────────────────────────────────────────────────────

MEMORY, PROCESSES = 2 * 2**30, 2048  # compose/lab.yaml

# Both end by themselves, whatever the limits are.
_FORK_BOMB = """
my @kids;
while (@kids < 4000) { defined(my $kid = fork) or last; $kid or (sleep 60, exit); push @kids, $kid }
print scalar @kids;
kill 9, @kids;
1 while wait > 0;
"""
_HOG = "my @held; while (@held < 5 * 64) { push @held, 'x' x (16 << 20) } print 'not stopped'"


@pytest.mark.parametrize("service", SERVICES)
def test_the_limits_of_memory_and_processes_reach_the_kernel(lab: RunningLab, service: str) -> None:
    # cgroup v2, or v1 (cgroups(7)).
    read = "cd /sys/fs/cgroup; cat memory.max pids.max 2>/dev/null || cat memory/memory.limit_in_bytes pids/pids.max"
    assert inside(lab, service, "sh", "-c", read).split() == [str(MEMORY), str(PROCESSES)]


@pytest.mark.parametrize("service", SERVICES)
def test_a_fork_bomb_is_stopped_and_the_lab_works_on(lab: RunningLab, service: str) -> None:
    made = int(inside(lab, service, "perl", "-e", _FORK_BOMB))
    assert PROCESSES - 100 < made < PROCESSES
    readiness.transaction(lab, Deadline.after(10), lambda: False)


@pytest.mark.parametrize("service", SERVICES)
def test_a_program_that_takes_all_memory_is_killed_and_the_lab_works_on(lab: RunningLab, service: str) -> None:
    container = lab.service(service).container
    ended = lab.engine.execute(container, ["perl", "-e", _HOG])
    assert (ended.code, ended.stdout) == (137, "")  # SIGKILL
    assert inspected(lab, service)["State"]["Running"]
    readiness.transaction(lab, Deadline.after(10), lambda: False)


# ── who listens ────────────────────────────────────────────────────────────────────────────────────────────────────


def listeners(lab: RunningLab, service: str) -> set[tuple[str, int]]:
    """Return TCP and UDP listeners, except the engine's own resolver on 127.0.0.11 (proc(5), /proc/net/tcp)."""
    found = set()
    tables = inside(lab, service, "sh", "-c", "cat /proc/net/tcp /proc/net/udp; cat /proc/net/tcp6 /proc/net/udp6 || :")
    for line in tables.splitlines():
        fields = line.split()
        if len(fields) > 3 and ":" in fields[1] and fields[3] in ("0A", "07"):
            address, _, port = fields[1].partition(":")
            quad = ".".join(str(byte) for byte in reversed(bytes.fromhex(address))) if len(address) == 8 else address
            found.add((quad, int(port, 16)))
    return {(address, port) for address, port in found if address != "127.0.0.11"}


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_listens_that_no_one_uses(lab: RunningLab, service: str) -> None:
    published = {("0.0.0.0", port.number) for port in PORTS if port.service == service}
    if service == "sender":
        published = {("127.0.0.1", 25)}
    assert listeners(lab, service) == published


def test_lmtp_and_sasl_are_sockets_that_postfix_and_dovecot_alone_have(lab: RunningLab) -> None:
    said = inside(lab, "dovecot", "stat", "-c", "%F %a %U %G", "/run/sockets", "/run/sockets/lmtp", "/run/sockets/sasl")
    assert said.splitlines() == ["directory 750 root postfix", *["socket 660 root postfix"] * 2]
    mounted = {
        (service, mount["Destination"])
        for service in SERVICES
        for mount in inspected(lab, service)["Mounts"]
        if mount.get("Name", "").endswith("_sockets")
    }
    assert mounted == {("postfix", "/run/sockets"), ("dovecot", "/run/sockets")}
    # Both sides of the door: a user who is not in Postfix's group is not let in.
    command = ["nc", "-z", "-U", "/run/sockets/lmtp"]
    postfix = lab.service("postfix").container
    assert lab.engine.execute(postfix, command, user="postfix").code == 0
    refused = lab.engine.execute(postfix, command, user="nobody")
    assert refused.code != 0 and "Permission denied" in refused.stderr


# ── the server's own process ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("service", SERVICES)
def test_the_server_itself_is_the_first_process(lab: RunningLab, service: str) -> None:
    assert inside(lab, service, "cat", "/proc/1/cmdline").strip("\0").replace("\0", " ") == SERVER[service]


@pytest.mark.parametrize("service", SERVICES)
def test_the_healthcheck_passes_and_leaves_no_line_in_the_log(lab: RunningLab, service: str) -> None:
    container = lab.service(service).container
    before = lab.engine.logs(container)
    begun = time.monotonic()
    for _ in range(3):
        assert inside(lab, service, "healthcheck") == ""
    assert time.monotonic() - begun < 5
    added = lab.engine.logs(container)[len(before) :]
    assert "127.0.0.1" not in added
    assert "connect" not in added


@pytest.mark.parametrize("service", SERVICES)
def test_the_healthcheck_fails_when_the_server_does_not_listen(lab: RunningLab, service: str) -> None:
    image = lab.service(service).image
    said = docker.from_env().api.create_container(image, entrypoint=["healthcheck"], labels=labels_of(lab))
    client = docker.from_env()
    container = client.containers.get(said["Id"])
    try:
        container.start()
        assert container.wait(timeout=20)["StatusCode"] != 0
    finally:
        container.remove(force=True)


def labels_of(lab: RunningLab) -> dict[str, str]:
    """Return a lab's labels, by which its parts are removed."""
    return {"mailstack.lab": lab.name, "mailstack.owner": lab.state.owner, "mailstack.expires": "never"}


@pytest.mark.parametrize("service", SERVICES)
def test_sigterm_ends_the_server_within_the_grace_period_with_code_0(labs: Labs, service: str) -> None:
    with labs.one("stopped") as lab:
        container = docker.from_env().containers.get(lab.service(service).container)
        assert container.attrs["Config"].get("StopTimeout") == GRACE_SECONDS
        assert container.attrs["Config"].get("StopSignal", "SIGTERM") == "SIGTERM"
        container.kill("SIGTERM")
        assert container.wait(timeout=GRACE_SECONDS)["StatusCode"] == 0
        errors = re.findall(r"^.*(?:[Ff]atal|[Ee]rror|panic).*$", container.logs().decode(), re.M)
        assert errors == []


# ── closed, seen from outside ──────────────────────────────────────────────────────────────────────────────────────

_LISTENER = """
import socket, sys
server = socket.create_server((sys.argv[1], 25))
print("listening", flush=True)
while True:
    connection, (address, port) = server.accept()
    print(address, flush=True)
    connection.close()
"""


@dataclasses.dataclass
class Outside:
    """A host on another network, to which this machine routes."""

    address: str
    heard: Path  # a line for each connection

    def connections(self) -> int:
        """Return the number of connections so far."""
        return len(self.heard.read_text().splitlines()) - 1


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """Yield a network namespace with a listener on port 25, at a reserved address (RFC 2544)."""
    ip = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if os.geteuid() != 0 or ip is None:
        pytest.skip("only root can make a network namespace" if ip else "there is no `ip` (iproute2) on this machine")
    token = secrets.token_hex(3)
    name, here, there = f"mailstack-{token}", f"ms{token}h", f"ms{token}n"
    net = f"198.18.{secrets.randbelow(256)}"
    heard = tmp_path_factory.mktemp("outside") / "heard"

    def run(*words: str) -> None:
        subprocess.run([str(ip), *words], check=True, capture_output=True, text=True)

    listener = None
    try:
        try:
            run("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine makes no network namespaces: {error.stderr.strip()}")
        run("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        run("address", "add", f"{net}.1/30", "dev", here)
        run("link", "set", here, "up")
        for words in (
            ("address", "add", f"{net}.2/30", "dev", there),
            ("link", "set", there, "up"),
            ("route", "add", "default", "via", f"{net}.1"),
        ):
            run("-n", name, *words)
        with heard.open("wb") as output:
            listener = subprocess.Popen(
                [str(ip), "netns", "exec", name, sys.executable, "-c", _LISTENER, f"{net}.2"], stdout=output
            )
        deadline = Deadline.after(10)
        while "listening" not in heard.read_text():
            assert not deadline.passed()
            assert listener.poll() is None
            time.sleep(0.01)
        yield Outside(f"{net}.2", heard)
    finally:
        if listener is not None:
            listener.kill()
            listener.wait()
        subprocess.run([str(ip), "link", "delete", here], check=False, capture_output=True)
        subprocess.run([str(ip), "netns", "delete", name], check=False, capture_output=True)


def test_no_container_of_a_lab_reaches_a_host_outside_that_any_other_container_reaches(
    lab: RunningLab, outside: Outside
) -> None:
    image = lab.service("sender").image
    dial = ["nc", "-z", "-w", "3", outside.address, "25"]
    # The control: an ordinary container, on Docker's ordinary network.
    docker.from_env().containers.run(image, dial[1:], entrypoint=["nc"], remove=True, labels=labels_of(lab))
    deadline = Deadline.after(5)
    while outside.connections() < 1:
        assert not deadline.passed(), "the listener outside heard nothing of the control"
        time.sleep(0.01)
    for service in SERVICES:
        assert lab.engine.execute(lab.service(service).container, dial).code != 0, service
    assert outside.connections() == 1
