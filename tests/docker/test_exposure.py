"""Another user of the host can reach the published services of a lab, and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest

from mailstack.engine import projects
from mailstack.lab.running import RunningLab
from mailstack.model import SERVICES
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

NOBODY = 65534
PORTS = range(1, 65536)
SLICES = 4


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("exposed") as running:
        yield running


def _become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


@pytest.fixture(scope="module")
def as_nobody() -> Iterator[Callable[..., Any]]:
    """Calls functions as a user unrelated to the lab, in forked processes, which need no new interpreter."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count(), fork, initializer=_become_nobody) as pool:
        assert pool.submit(os.getresuid).result() == (NOBODY, NOBODY, NOBODY)
        yield pool.submit


def open_ports(address: str, ports: range) -> list[int]:
    """Return the TCP ports that accept a connection."""
    found = []
    for port in ports:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as dialling:
            dialling.settimeout(2)
            if dialling.connect_ex((address, port)) == 0:
                found.append(port)
    return found


def denied(path: str) -> bool:
    """Return whether a directory cannot be listed."""
    try:
        next(Path(path).iterdir(), None)
    except PermissionError:
        return True
    return False


def inspected(lab: RunningLab) -> dict[str, dict[str, Any]]:
    """Return the engine's descriptions of the containers."""
    client = docker.from_env()
    return {name: client.containers.get(lab.service(name).container).attrs for name in SERVICES}


def test_a_scan_of_all_ports_at_all_addresses_finds_nothing_but_the_published_services(
    lab: RunningLab, as_nobody: Callable[..., Any]
) -> None:
    scans = {}
    for name, attributes in inspected(lab).items():
        for network in attributes["NetworkSettings"]["Networks"].values():
            for address in filter(None, (network["IPAddress"], network["GlobalIPv6Address"])):
                scans[name, address] = [as_nobody(open_ports, address, PORTS[n::SLICES]) for n in range(SLICES)]
    assert len(scans) >= 5
    published = {name: set(lab.service(name).ports) for name in SERVICES}
    assert published == {"postfix": {25, 465, 587}, "dovecot": {110, 143, 993, 995}, "sender": set()}
    for (name, address), parts in scans.items():
        found = {port for part in parts for port in part.result()}
        assert found == published[name], (name, address)


def test_the_published_ports_are_on_the_loopback_and_at_no_other_address_of_the_host(
    lab: RunningLab, as_nobody: Callable[..., Any]
) -> None:
    numbers = sorted(endpoint.port for endpoint in lab.endpoints.values())
    gateways = {
        network["Gateway"]
        for attributes in inspected(lab).values()
        for network in attributes["NetworkSettings"]["Networks"].values()
    }
    # An internal network has a gateway, too: the host's address on its bridge.
    client = docker.from_env()
    for network in client.networks.list(filters={"label": f"mailstack.lab={lab.name}"}):
        gateways |= {pool.get("Gateway") for pool in network.attrs["IPAM"]["Config"]}
    gateways -= {"", None}
    assert gateways
    for number in numbers:
        one = range(number, number + 1)
        assert as_nobody(open_ports, "127.0.0.1", one).result() == [number]
        for gateway in gateways:
            assert as_nobody(open_ports, gateway, one).result() == [], (gateway, number)


def test_the_directory_of_the_sockets_and_that_of_the_secrets_cannot_be_looked_into(
    lab: RunningLab, as_nobody: Callable[..., Any]
) -> None:
    client = docker.from_env()
    project = projects.project_name(lab.name)
    volumes = [client.volumes.get(f"{project}_{name}") for name in ("sockets", "mailboxes", "queue")]
    private = [volume.attrs["Mountpoint"] for volume in volumes] + [str(lab.directory.files)]
    assert any(Path(path).exists() for path in private)
    for path in private:
        assert as_nobody(denied, path).result(), path
