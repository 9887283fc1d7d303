"""Sockets and ports of this machine that lead to a host over SSH: servers, and the joining of two streams."""

from __future__ import annotations

import contextlib
import functools
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_BUFFER = 1 << 16


class Forwards:
    """The ports of this machine's loopback that lead to the host."""

    def __init__(self, lead: Callable[[int], Any]) -> None:
        """`lead` connects to a port of the host's loopback, and returns the channel."""
        self._lead = lead
        self._servers: dict[int, Ports] = {}
        self._lock = threading.Lock()

    def open(self, ports: Iterable[int]) -> list[int]:
        """Listen on these ports; returns those that are taken."""
        taken = []
        with self._lock:
            for port in set(ports) - set(self._servers):
                try:
                    server = Ports(("127.0.0.1", port), functools.partial(self._lead, port))
                except OSError:
                    taken.append(port)
                    continue
                self._servers[port] = server
                threading.Thread(target=server.serve_forever, daemon=True).start()
        return sorted(taken)

    def close(self, ports: Iterable[int]) -> None:
        """Listen on these ports no longer."""
        with self._lock:
            servers = [self._servers.pop(port) for port in ports if port in self._servers]
        for server in servers:
            with contextlib.suppress(OSError):
                server.socket.shutdown(socket.SHUT_RDWR)  # it wakes up; else it looks every half a second
            server.shutdown()
            server.server_close()


class Sockets(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A Unix socket; each client is handled in a thread."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, handle: Callable[[socket.socket], None]) -> None:
        path.unlink(missing_ok=True)
        self._handle = handle
        super().__init__(str(path), socketserver.BaseRequestHandler)
        path.chmod(0o600)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._handle(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One client's trouble is told to that client alone: its connection ends."""


class Ports(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A port of the loopback that leads somewhere."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], lead: Callable[[], Any]) -> None:
        self._lead = lead
        super().__init__(address, socketserver.BaseRequestHandler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        join(request, self._lead())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """As above: nothing listens at the other end, say."""


def join(client: socket.socket, channel: Any) -> None:
    """Carry what is said between a client and a channel, until both have said all."""

    def towards_client() -> None:
        with contextlib.suppress(OSError):
            while data := channel.recv(_BUFFER):
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=towards_client, daemon=True)
    back.start()
    with contextlib.suppress(OSError):
        while data := client.recv(_BUFFER):
            channel.sendall(data)
    with contextlib.suppress(OSError):
        channel.shutdown_write()
    back.join()
    channel.close()
