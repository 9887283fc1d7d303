"""Logs of containers, followed line by line: over their restarts and rotation, several at once, against a deadline.

Where a log rotates (`max-size` of json-file), the engine's own following is not enough. Engine 20.10 repeats lines at
each rotation; when a log rotates while its past is still being read, it leaves out a whole file, and may then say
nothing more until the next rotation. A log that is read without being followed is right at any moment. So the past is
read that way, and the engine follows from the last line on. What it repeats is left out; where it has fallen silent
although there are newer lines, or says that it has failed, the log is read and opened again.
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

# Characters of a line's time.
TIME = len("2026-11-23T21:29:17.692174350Z")
# Pieces that are remembered, to be left out when the engine repeats them: many times what it does repeat.
_REMEMBERED = 4096
# A log that rotates while it is read may have to be read again.
_READS = 10
# How often, in seconds, it is asked whether the log has a newer line than the last that came.
LOOK_SECONDS = 2.0
# Lines that are held for a reader who is slower than the servers; the engine holds the rest.
_HELD = 20_000

_Heard = queue.Queue[tuple[str, str | MailstackError | None]]


class Source(Protocol):
    """Logs and events as streams that can be closed while they are read; see `Engine`."""

    def open_log(self, container: str) -> Any:
        """The container's last line, and what it prints until it stops."""

    def read_log(self, container: str, since: float | None) -> Any:
        """What the container has printed since `since` (seconds of the epoch; None: ever), as far as the log has it."""

    def last_of_log(self, container: str) -> bytes:
        """The last line of the container's log; empty when there is none."""

    def open_events(self, container: str) -> Any:
        """When the container is started or removed, from now on."""

    def runs(self, container: str) -> bool:
        """Whether a container runs."""


class Log:
    """A container's log as it grows, in pieces that begin with their time, until the container is removed."""

    def __init__(self, source: Source, container: str, since: float | None) -> None:
        self._source, self._container = source, container
        self._closed = threading.Event()
        # The time of the last piece, and of the last one that was read without following.
        self._last = self._read = b"" if since is None else _time(since)
        self._recent: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._known: set[bytes] = set()  # the same, to be looked up
        self._open = source.open_log(container)

    def __iter__(self) -> Iterator[bytes]:
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            with contextlib.suppress(EngineError):  # the container has been removed
                while not self._closed.is_set():
                    yield from self._pieces()
        finally:
            self._closed.set()  # ends the thread

    def _pieces(self) -> Iterator[bytes]:
        """The pieces of one stream, and what it leaves out; the next one is open then."""
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
            yield from self._past()  # a stream that breaks off may leave out the end
            self._reopen()

    def _past(self) -> Iterator[bytes]:
        """What the log has, and has not come yet."""
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
        if piece in self._known and piece.endswith(b"\n"):  # parts of one long line have the same time
            return False
        if len(self._recent) == _REMEMBERED:
            self._known.discard(self._recent[0])
        self._recent.append(piece)
        self._known.add(piece)
        self._last = max(self._last, piece[:TIME])
        return True

    def _reopen(self) -> None:
        self._switch(self._source.open_events(self._container))
        if not self._source.runs(self._container):
            next(iter(self._open), None)
        self._switch(self._source.open_log(self._container))

    def _switch(self, stream: Any) -> None:
        _hang_up(self._open)
        self._open = stream
        if self._closed.is_set():
            _hang_up(stream)

    def _watch(self) -> None:
        """End a stream that leaves out what the log has: it is opened again."""
        awaited, stream = b"", None
        with contextlib.suppress(MailstackError):  # the thread that reads the log is told the same
            while not self._closed.wait(LOOK_SECONDS):
                if awaited > self._last and stream is self._open:
                    _hang_up(stream)
                stream, awaited = self._open, self._source.last_of_log(self._container)[:TIME]

    def close(self) -> None:
        """Close the connection: reading the log comes to its end."""
        self._closed.set()
        _hang_up(self._open)


def _failed(piece: bytes) -> bool:
    """Whether a piece is the engine's own, without a time: “Error grabbing logs”, where a file has gone meanwhile."""
    return not piece[:1].isdigit()


def _time(moment: float) -> bytes:
    """Seconds of the epoch as the engine writes them."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%S.%f}000Z".encode()


def _moment(time: bytes) -> float:
    """The same the other way round, rounded down to microseconds."""
    return datetime.fromisoformat(f"{time[:26].decode()}+00:00").timestamp()


def _hang_up(stream: Any) -> None:
    # The SDK's close() trips over a stream that ends at this moment.
    with contextlib.suppress(Exception):
        stream.close()


def _listen(name: str, source: Iterable[bytes], heard: _Heard, over: threading.Event) -> None:
    """Put the lines of a log into `heard`, and at the log's end None, or the error that ended it."""
    begun = b""
    end: MailstackError | None = None
    try:
        for data in source:
            *whole, begun = (begun + data).split(b"\n")
            for line in whole:
                heard.put((name, line.decode(errors="replace")))
                if over.is_set():
                    return
    except (OSError, ValueError, AttributeError):
        pass  # a connection that breaks, or is closed while it is read, ends the log like any other end
    except MailstackError as error:  # the host has gone, say
        end = error
    if begun:
        heard.put((name, begun.decode(errors="replace")))
    heard.put((name, end))


def merged(sources: Mapping[str, Iterable[bytes]], remaining: Callable[[], float]) -> Iterator[tuple[str, str] | None]:
    """Lines of several logs as they come, each with its source's name; each log is read by a thread of its own.

    `remaining` says how many seconds are left: when there are none, None is the last to come. An end without it means
    that all logs have ended. Raises what reading one of them has raised, if that is a MailstackError.
    """
    heard: _Heard = queue.Queue(_HELD)
    over = threading.Event()
    for name, source in sources.items():
        threading.Thread(target=_listen, args=(name, source, heard, over), daemon=True).start()
    going = set(sources)
    try:
        while going:
            left = min(remaining(), threading.TIMEOUT_MAX)
            try:
                if left <= 0:
                    raise queue.Empty
                name, line = heard.get(timeout=left)
            except queue.Empty:
                yield None
                return
            if isinstance(line, MailstackError):
                raise line
            if line is None:
                going.remove(name)
            else:
                yield name, line
    finally:
        over.set()
        with contextlib.suppress(queue.Empty):  # so that no thread waits for room
            while True:
                heard.get_nowait()
