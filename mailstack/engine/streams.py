"""Sockets that carry a container's standard streams."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable, Iterator


def exactly(stream: socket.socket, count: int) -> bytes:
    """Return the next `count` bytes, or none when the stream ends before them."""
    parts = bytearray()
    while len(parts) < count:
        part = stream.recv(count - len(parts))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def shut(stream: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Shut the socket down, unless the other side has closed it already."""
    with contextlib.suppress(OSError):
        stream.shutdown(how)


def feed(stream: socket.socket, pieces: Iterable[bytes]) -> None:
    """Send a program's input. When the program exits before it has read all, its exit code tells why."""
    for piece in pieces:
        try:
            stream.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return
    shut(stream, socket.SHUT_WR)


def frames(stream: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield an attached container's output as (channel, data): 1 is standard output, 2 is standard error.

    Docker Engine API, “Attach to a container”, stream format.
    """
    while header := exactly(stream, 8):
        channel, length = struct.unpack(">BxxxL", header)
        yield channel, exactly(stream, length)


def plain(stream: socket.socket) -> socket.socket:
    """Return a socket that carries the program's input and output without frames."""
    near, far = socket.socketpair()

    def inwards() -> None:
        with contextlib.suppress(OSError):
            for _, data in frames(stream):
                far.sendall(data)
        shut(far, socket.SHUT_WR)

    def outwards() -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                stream.sendall(data)
        shut(stream)
        stream.close()

    def both() -> None:
        answering = threading.Thread(target=inwards, daemon=True)
        answering.start()
        outwards()
        answering.join()
        far.close()

    threading.Thread(target=both, daemon=True).start()
    return near
