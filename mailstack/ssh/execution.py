"""One command on a channel of an SSH connection, run to its end by the same rules as a child process."""

from __future__ import annotations

import contextlib
import queue
import secrets
import shlex
import threading
from collections.abc import Callable
from typing import Any

from mailstack.model import Command, Result
from mailstack.runner.output import LineSink, Output

# How long the outputs are read after the command's end, in seconds, while a process it left behind holds them open and
# prints nothing.
LINGER_SECONDS = 1.0

_PIECE = 1 << 16
# Pieces that wait for the line callback. When there are more, the command has to wait (RFC 4254, section 5.2).
_PIECES = 16
_AGAIN_SECONDS = 0.5

_UNKNOWN = -1  # paramiko's value before an exit status is received

# How much output before the mark is kept, in bytes.
_NOISE_BYTES = 1 << 16
_BEGIN = 'printf %s "$0"; printf %s "$0" >&2; exec "$@"'

_Chunk = tuple[Callable[[bytes], None], bytes]


class OutputStart:
    """Finds the start of a command's output by its mark; the user's login shell may print anything before it."""

    def __init__(self, mark: bytes, take: Callable[[bytes], None]) -> None:
        self._mark, self._take = mark, take
        self._before = b""
        self._seen = False

    def __call__(self, data: bytes) -> None:
        """Take a piece, and pass on the output after the mark."""
        if not self._seen:
            before, mark, data = (self._before + data).partition(self._mark)
            self._seen = bool(mark)
            self._before = before[-_NOISE_BYTES:]
        if self._seen and data:
            self._take(data)

    def finish(self) -> None:
        """Pass on the output without a mark: the command was not started then, and this output tells why."""
        if not self._seen and self._before:
            self._take(self._before)


def run_streams(
    channel: Any, command: Command, mark: bytes, on_line: LineSink | None, late: threading.Event
) -> Result | None:
    """Carry the streams of a command that runs on a channel until it ends. Return None when the channel ends first.

    `mark` comes before the command's own output; see `line_of`. The line callback runs in the calling thread, and is
    not called any more once `late` is set. Raises CommandFailed when the command prints too much, and the exceptions of
    `on_line`.
    """
    output = Output(command, on_line)
    out, err = OutputStart(mark, output.out), OutputStart(mark, output.err)
    chunks: queue.Queue[_Chunk] = queue.Queue(_PIECES)
    stopped = threading.Event()

    def put(chunk: _Chunk) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                chunks.put(chunk, timeout=_AGAIN_SECONDS)
                return

    def read(receive: Callable[[int], bytes], take: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError):
            while data := receive(_PIECE):
                put((take, data))
        put((take, b""))

    def write() -> None:
        with contextlib.suppress(OSError):  # the command ended without reading its input: its exit code tells
            if command.input:
                channel.sendall(command.input)
            channel.shutdown_write()

    def end() -> None:
        channel.status_event.wait()
        put((_ended, b""))

    for work in (lambda: read(channel.recv, out), lambda: read(channel.recv_stderr, err), write, end):
        threading.Thread(target=work, daemon=True).start()
    try:
        _take(chunks, {out, err, _ended}, late)
    finally:
        stopped.set()
    if late.is_set() or channel.exit_status == _UNKNOWN:
        return None
    out.finish()
    err.finish()
    output.finish()
    return output.result(channel.exit_status)


def _ended(_: bytes) -> None:
    """Mark the end of the command: its exit status has been received."""


def _take(chunks: queue.Queue[_Chunk], open_: set[Callable[[bytes], None]], late: threading.Event) -> None:
    """Process the queue until all streams have ended, or the command has ended and its outputs are silent."""
    while open_ and not late.is_set():
        try:
            take, data = chunks.get(timeout=None if _ended in open_ else LINGER_SECONDS)
        except queue.Empty:
            return
        if data:
            take(data)
        else:
            open_.discard(take)


def end(transport: Any, channel: Any, seconds: float) -> None:
    """End the command on a channel: SIGTERM, then SIGKILL after `seconds`. Then close the channel."""
    if channel.closed:  # the channel's number may be reused by now
        return
    transport.signal(channel, "TERM")
    channel.status_event.wait(seconds)
    if not channel.closed:
        transport.signal(channel, "KILL")  # also for the processes that the command left in its session
    channel.close()


def new_mark() -> bytes:
    """Return a random mark that no login shell prints."""
    return f"mailstack-{secrets.token_hex(8)}:".encode()


def login_shell_line(command: Command, mark: bytes) -> str:
    """Return the command as one line for the user's login shell, the only form in SSH (RFC 4254, section 6.5).

    The mark is printed first, on both outputs. The command replaces the shell with `exec`: sshd then sends signals to
    the command itself, and reports its exit status.
    """
    settings = [f"{name}={value}" for name, value in command.environment.items()]
    prefix = ("sh", "-c", _BEGIN, mark.decode(), *(("env", *settings) if settings else ()))
    return f"exec {shlex.join((*prefix, *command.argv))}"
