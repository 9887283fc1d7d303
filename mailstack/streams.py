"""What carries containers' standard streams: sockets, and logs that are followed."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping


def exactly(stream: socket.socket, count: int) -> bytes:
    """The next `count` bytes; none at all when the stream ends before them."""
    parts = bytearray()
    while len(parts) < count:
        part = stream.recv(count - len(parts))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def shut(stream: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Say that nothing more comes, unless the other side has said so first."""
    with contextlib.suppress(OSError):
        stream.shutdown(how)


def frames(stream: socket.socket) -> Iterator[tuple[int, bytes]]:
    """An attached container's stream as (channel, data): 1 is standard output, 2 is standard error.

    Docker Engine API, “Attach to a container”, stream format.
    """
    while header := exactly(stream, 8):
        channel, length = struct.unpack(">BxxxL", header)
        yield channel, exactly(stream, length)


def plain(stream: socket.socket) -> socket.socket:
    """A socket whose bytes are the program's input and output, without frames around them."""
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

    for pump in (inwards, outwards):
        threading.Thread(target=pump, daemon=True).start()
    return near


def merged(sources: Mapping[str, Iterable[bytes]], remaining: Callable[[], float]) -> Iterator[tuple[str, str] | None]:
    """Lines of several logs as they come, each with its source's name; each log is read by a thread of its own.

    `remaining` says how many seconds are left: when there are none, None is the last to come. An end without it means
    that all logs have ended.
    """
    heard: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()

    def listen(name: str, source: Iterable[bytes]) -> None:
        begun = b""
        # A connection that breaks, or is closed while it is read, ends the log like any other end.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for data in source:
                *whole, begun = (begun + data).split(b"\n")
                for line in whole:
                    heard.put((name, line.decode(errors="replace")))
        if begun:
            heard.put((name, begun.decode(errors="replace")))
        heard.put((name, None))

    for name, source in sources.items():
        threading.Thread(target=listen, args=(name, source), daemon=True).start()
    going = set(sources)
    while going:
        left = min(remaining(), threading.TIMEOUT_MAX)
        try:
            if left <= 0:
                raise queue.Empty
            name, line = heard.get(timeout=left)
        except queue.Empty:
            yield None
            return
        if line is None:
            going.remove(name)
        else:
            yield name, line
