"""Forward sockets and ports of this machine to a host over SSH: the servers, and copying between two streams."""

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
    """The ports of this machine's loopback that are forwarded to the host."""

    def __init__(self, lead: Callable[[int], Any]) -> None:
        """Take `lead`, which connects to a port of the host's loopback and returns the channel."""
        self._lead = lead
        self._servers: dict[int, Ports] = {}
        self._lock = threading.Lock()

    def open(self, ports: Iterable[int]) -> list[int]:
        """Listen on these ports. Return those that are in use."""
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
        """Stop listening on these ports."""
        with self._lock:
            servers = [self._servers.pop(port) for port in ports if port in self._servers]
        for server in servers:
            with contextlib.suppress(OSError):
                server.socket.shutdown(socket.SHUT_RDWR)  # wakes the server up, which polls every 0.5 s otherwise
            server.shutdown()
            server.server_close()


class Sockets(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A server on a Unix socket; a thread handles each client."""

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
        """Ignore the error of one client: its connection is closed, the others stay."""


class Ports(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A server on a loopback port that forwards each connection."""

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
        """Ignore the error, as above: for example, nothing listens at the other end."""


def join(client: socket.socket, channel: Any) -> None:
    """Copy data between a client and a channel in both directions until both have ended."""

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
