"""Connections that start inside a container: many over one `docker exec`, each an ordinary socket here.

The other end is stack/sender/dialer, which describes the frames. One process serves all connections: a process for each
would cost the engine 50 ms of work every time.
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Callable

from mailstack.engine.streams import exactly, shut

_HEADER = struct.Struct("!II")


class Dialer:
    """Dials from inside a container, until the `with` block ends."""

    def __init__(self, open_stream: Callable[[list[str]], socket.socket]) -> None:
        # The stream of a program in the container: write its standard input, read its standard output.
        self._stream = open_stream(["dialer"])
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._ends: dict[int, socket.socket] = {}
        threading.Thread(target=self._receive, daemon=True).start()

    def __enter__(self) -> Dialer:
        return self

    def __exit__(self, *_: object) -> None:
        shut(self._stream)

    def dial(self, host: str, port: int) -> socket.socket:
        """Return a connection from the container to host:port. A refused connection is closed without any data."""
        near, far = socket.socketpair()
        number = next(self._numbers)
        self._ends[number] = far
        self._send(number, f"{host} {port}".encode())
        threading.Thread(target=self._forward, args=(number, far), daemon=True).start()
        return near

    def _send(self, number: int, data: bytes) -> None:
        with self._sending:
            self._stream.sendall(_HEADER.pack(number, len(data)) + data)

    def _forward(self, number: int, far: socket.socket) -> None:
        """Copy data from our end to the container until our end is closed."""
        try:
            while data := far.recv(65536):
                self._send(number, data)
            self._send(number, b"")
        except OSError:
            pass  # the stream or the connection has ended
        finally:
            self._drop(number)

    def _receive(self) -> None:
        """Copy data from the container to our ends until the program there exits."""
        try:
            while header := exactly(self._stream, _HEADER.size):
                number, length = _HEADER.unpack(header)
                data = exactly(self._stream, length)
                far = self._ends.get(number)
                if far is None:
                    continue
                if data:
                    try:
                        far.sendall(data)
                    except OSError:
                        self._drop(number)
                else:
                    shut(far)
        except OSError:
            pass
        for number in list(self._ends):
            self._drop(number)

    def _drop(self, number: int) -> None:
        far = self._ends.pop(number, None)
        if far is not None:
            shut(far)
            far.close()
