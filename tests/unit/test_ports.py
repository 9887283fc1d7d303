"""Ports with a listener, from the kernel's own table."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mailstack.network import ports


@pytest.mark.sockets
def test_the_kernels_table_tells_what_listens_on_the_loopback() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as loopback,
        socket.create_server(("0.0.0.0", 0)) as all_addresses,
        socket.create_connection(loopback.getsockname()) as client,
    ):
        found = ports.listening(Path("/proc/net/tcp").read_text().splitlines())
        listeners = {each.getsockname()[1] for each in (loopback, all_addresses)}
        assert listeners <= found and client.getsockname()[1] not in found


def test_what_listens_elsewhere_takes_no_port_of_the_loopback() -> None:
    table = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "   0: 0200007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1",
        "   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000",
        "   2: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 00000000:00000000",
        "",
    ]
    assert ports.listening(table) == {80}
