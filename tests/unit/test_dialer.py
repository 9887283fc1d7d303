"""Many connections over one stream, with the real program on the other end. It needs Perl, which the sender has."""

from __future__ import annotations

import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator

import pytest

from mailstack.definition.bundled import stack
from mailstack.engine.dialer import Dialer

pytestmark = [pytest.mark.process, pytest.mark.sockets]


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data.upper())
            if data.endswith(b"bye"):
                return


@pytest.fixture
def port() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def dialer() -> Iterator[Dialer]:
    if not shutil.which("perl"):
        pytest.skip("there is no Perl here; the program runs in the sender, which has it")
    near, far = socket.socketpair()
    process = subprocess.Popen(["perl", str(stack() / "sender" / "dialer")], stdin=far.fileno(), stdout=far.fileno())
    far.close()
    with Dialer(lambda argv: near) as dialer:
        yield dialer
    near.close()
    assert process.wait(10) == 0


def _receive(connection: socket.socket, count: int) -> bytes:
    connection.settimeout(10)
    data = b""
    while len(data) < count:
        part = connection.recv(65536)
        if not part:
            break
        data += part
    return data


def test_connections_do_not_mix(dialer: Dialer, port: int) -> None:
    connections = [dialer.dial("127.0.0.1", port) for _ in range(20)]
    for number, connection in enumerate(connections):
        connection.sendall(f"connection {number}".encode())
    for number, connection in enumerate(connections):
        expected = f"CONNECTION {number}".encode()
        assert _receive(connection, len(expected)) == expected
        connection.close()


def test_much_goes_through_byte_for_byte(dialer: Dialer, port: int) -> None:
    data = bytes(range(97, 123)) * 100_000
    connection = dialer.dial("127.0.0.1", port)
    threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
    assert _receive(connection, len(data)) == data.upper()
    connection.close()


def test_the_other_side_s_close_is_seen(dialer: Dialer, port: int) -> None:
    connection = dialer.dial("127.0.0.1", port)
    connection.sendall(b"bye")
    assert _receive(connection, 100) == b"BYE"


def test_a_connection_that_is_refused_is_closed(dialer: Dialer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        connection = dialer.dial("127.0.0.1", unused.getsockname()[1])
        assert _receive(connection, 1) == b""
