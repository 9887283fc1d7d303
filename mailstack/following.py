"""Logs of containers, followed line by line: over their restarts, several at once, against a deadline."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from mailstack.errors import EngineError

_TIME = len("2026-11-23T21:29:17.692174350Z")


class Source(Protocol):
    """What gives logs and events as streams that can be closed while they are read; see `Engine`."""

    def open_log(self, container: str, since: float | None) -> Any:
        """What a container prints, until it stops."""

    def open_events(self, container: str) -> Any:
        """When a container is started or removed, from now on."""

    def runs(self, container: str) -> bool:
        """Whether a container runs."""


class Log:
    """A container's log as it grows, in pieces that begin with their time, until the container is removed."""

    def __init__(self, source: Source, container: str, since: float | None) -> None:
        self._source, self._container, self._since = source, container, since
        self._closed = False
        self._open = source.open_log(container, since)

    def __iter__(self) -> Iterator[bytes]:
        last = b""
        with contextlib.suppress(EngineError):  # the container has been removed
            while not self._closed:
                seen = last
                for piece in self._open:
                    if seen and piece[:_TIME] <= seen:
                        continue  # from before the restart: the log is read again
                    seen, last = b"", piece[:_TIME]
                    yield piece
                if not self._closed:
                    self._wait_for_start()

    def _wait_for_start(self) -> None:
        self._switch(self._source.open_events(self._container))
        if not self._source.runs(self._container):
            next(iter(self._open), None)
        self._switch(self._source.open_log(self._container, self._since))

    def _switch(self, stream: Any) -> None:
        _hang_up(self._open)
        self._open = stream
        if self._closed:
            _hang_up(stream)

    def close(self) -> None:
        """Close the connection: whoever reads the log comes to its end."""
        self._closed = True
        _hang_up(self._open)


def _hang_up(stream: Any) -> None:
    # The SDK's close() trips over a stream that ends at this moment.
    with contextlib.suppress(Exception):
        stream.close()


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
