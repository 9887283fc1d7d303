"""Follow logs of containers line by line: across restarts and rotation, several at once, until a deadline.

When a log rotates (`max-size` of json-file), the engine's own following is not enough. Engine 20.10 repeats lines at
each rotation. When a log rotates while its past is still being read, the engine skips a whole file, and may then send
nothing until the next rotation. Reading a log without following it is correct at any moment. So the past is read
without following, and the engine follows from the last line on. Repeated lines are dropped. When the engine sends
nothing although there are newer lines, or reports an error, the log is read and opened again.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from mailstack.errors import EngineError, MailstackError

# Length of a line's timestamp, in characters.
TIME = len("2026-11-23T21:29:17.692174350Z")
# How many pieces are remembered to drop repeated ones: many times as many as the engine repeats.
_REMEMBERED = 4096
# How often a log is read at most: one that rotates meanwhile may have to be read again.
_READS = 10
# Interval, in seconds, between checks for a line that is newer than the last one received.
CHECK_SECONDS = 2.0
# Lines that are buffered for a reader slower than the servers; the engine holds the rest.
_BUFFERED = 20_000

_Queue = queue.Queue[tuple[str, str | MailstackError | None]]


class Source(Protocol):
    """Logs and events as streams that can be closed while they are read; see `Engine`."""

    def open_log(self, container: str) -> Any:
        """Return the container's last line, and then its output until it stops."""

    def read_log(self, container: str, since: float | None) -> Any:
        """Return the container's log since `since` (seconds of the epoch; None: all of it), without following."""

    def last_line(self, container: str) -> bytes:
        """Return the last line of the container's log; empty when there is none."""

    def open_events(self, container: str) -> Any:
        """Return the events of the container's start and removal from now on."""

    def is_running(self, container: str) -> bool:
        """Return whether a container is running."""


class Log:
    """A container's log as it grows, in pieces that begin with their timestamp, until the container is removed."""

    def __init__(self, source: Source, container: str, since: float | None) -> None:
        self._source, self._container = source, container
        self._closed = threading.Event()
        # The timestamps of the last piece, and of the last one that was read without following.
        self._last = self._read = b"" if since is None else _time(since)
        self._recent: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._known: set[bytes] = set()  # the same, for lookup
        self._open = source.open_log(container)

    def __iter__(self) -> Iterator[bytes]:
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            with contextlib.suppress(EngineError):  # the container has been removed
                while not self._closed.is_set():
                    yield from self._pieces()
        finally:
            self._closed.set()  # stops the thread

    def _pieces(self) -> Iterator[bytes]:
        """Yield the pieces of one stream and those that it skips, then open the next stream."""
        unread = True
        for piece in self._open:
            if _failed(piece):
                break
            if unread:
                unread = False
                yield from self._past()
            if piece[:TIME] > self._read and self._new(piece):
                yield piece
        if not self._closed.is_set():
            yield from self._past()  # a stream that breaks off may miss the end
            self._reopen()

    def _past(self) -> Iterator[bytes]:
        """Yield the pieces of the log that have not been yielded yet."""
        for _ in range(_READS):
            before = self._last
            for piece in self._source.read_log(self._container, _moment(before) if before else None):
                if self._closed.is_set():
                    return
                if _failed(piece):
                    break
                if piece[:TIME] > before and self._new(piece):
                    yield piece
            else:
                break
        self._read = max(self._read, self._last)

    def _new(self, piece: bytes) -> bool:
        if piece in self._known and piece.endswith(b"\n"):  # the parts of one long line have the same timestamp
            return False
        if len(self._recent) == _REMEMBERED:
            self._known.discard(self._recent[0])
        self._recent.append(piece)
        self._known.add(piece)
        self._last = max(self._last, piece[:TIME])
        return True

    def _reopen(self) -> None:
        self._switch(self._source.open_events(self._container))
        if not self._source.is_running(self._container):
            next(iter(self._open), None)
        self._switch(self._source.open_log(self._container))

    def _switch(self, stream: Any) -> None:
        _close_stream(self._open)
        self._open = stream
        if self._closed.is_set():
            _close_stream(stream)

    def _watch(self) -> None:
        """Close a stream that misses lines of the log, so that it is opened again."""
        awaited, stream = b"", None
        with contextlib.suppress(MailstackError):  # the thread that reads the log gets the same error
            while not self._closed.wait(CHECK_SECONDS):
                if awaited > self._last and stream is self._open:
                    _close_stream(stream)
                stream, awaited = self._open, self._source.last_line(self._container)[:TIME]

    def close(self) -> None:
        """Close the connection, which ends the reading of the log."""
        self._closed.set()
        _close_stream(self._open)


def _failed(piece: bytes) -> bool:
    """Return whether a piece is the engine's own error: “Error grabbing logs”, without a timestamp (a file is gone)."""
    return not piece[:1].isdigit()


def _time(moment: float) -> bytes:
    """Return seconds of the epoch in the engine's format."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%S.%f}000Z".encode()


def _moment(time: bytes) -> float:
    """Return a timestamp of the engine as seconds of the epoch, rounded down to microseconds."""
    return datetime.fromisoformat(f"{time[:26].decode()}+00:00").timestamp()


def _close_stream(stream: Any) -> None:
    # The SDK's close() fails for a stream that ends at this moment.
    with contextlib.suppress(Exception):
        stream.close()


def _listen(name: str, source: Iterable[bytes], lines: _Queue, stopped: threading.Event) -> None:
    """Put the lines of a log into `lines`, then None at its end, or the error that ended it."""
    partial = b""
    end: MailstackError | None = None
    try:
        for data in source:
            *complete, partial = (partial + data).split(b"\n")
            for line in complete:
                lines.put((name, line.decode(errors="replace")))
                if stopped.is_set():
                    return
    except (OSError, ValueError, AttributeError):
        pass  # a connection that breaks, or is closed while it is read, ends the log like any other end
    except MailstackError as error:  # for example, the host is unreachable
        end = error
    if partial:
        lines.put((name, partial.decode(errors="replace")))
    lines.put((name, end))


def merged(sources: Mapping[str, Iterable[bytes]], remaining: Callable[[], float]) -> Iterator[tuple[str, str] | None]:
    """Yield the lines of several logs as they come, each with its source's name; a thread reads each log.

    `remaining` returns how many seconds are left. When none are left, None is the last item. An end without None means
    that all logs have ended. Raises the MailstackError that reading one of them raised.
    """
    lines: _Queue = queue.Queue(_BUFFERED)
    stopped = threading.Event()
    for name, source in sources.items():
        threading.Thread(target=_listen, args=(name, source, lines, stopped), daemon=True).start()
    running = set(sources)
    try:
        while running:
            left = min(remaining(), threading.TIMEOUT_MAX)
            try:
                if left <= 0:
                    raise queue.Empty
                name, line = lines.get(timeout=left)
            except queue.Empty:
                yield None
                return
            if isinstance(line, MailstackError):
                raise line
            if line is None:
                running.remove(name)
            else:
                yield name, line
    finally:
        stopped.set()
        with contextlib.suppress(queue.Empty):  # so that no thread waits for space in the queue
            while True:
                lines.get_nowait()
