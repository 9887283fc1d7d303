"""One command on a channel of an SSH connection, run to its end; what holds of a child process here holds of it."""

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

# How long its outputs are read after its end while a process of its own holds them open and prints nothing; in seconds.
LINGER_SECONDS = 1.0

_PIECE = 1 << 16
# Pieces that wait for the line callback: beyond that, the command waits too (RFC 4254, section 5.2).
_PIECES = 16
_AGAIN_SECONDS = 0.5

_UNKNOWN = -1  # paramiko's: no exit status has come

# How much of what came before the mark is kept, in bytes.
_NOISE_BYTES = 1 << 16
_BEGIN = 'printf %s "$0"; printf %s "$0" >&2; exec "$@"'

_Heard = tuple[Callable[[bytes], None], bytes]


class Begin:
    """The beginning of what a command prints: before it, the user's login shell may print whatever it likes."""

    def __init__(self, mark: bytes, take: Callable[[bytes], None]) -> None:
        self._mark, self._take = mark, take
        self._before = b""
        self._seen = False

    def __call__(self, data: bytes) -> None:
        """Take a piece, and pass on what comes after the mark."""
        if not self._seen:
            before, mark, data = (self._before + data).partition(self._mark)
            self._seen = bool(mark)
            self._before = before[-_NOISE_BYTES:]
        if self._seen and data:
            self._take(data)

    def finish(self) -> None:
        """Pass on what came instead: where there was no mark, the command was never begun, and this tells why."""
        if not self._seen and self._before:
            self._take(self._before)


def carry(
    channel: Any, command: Command, mark: bytes, on_line: LineSink | None, late: threading.Event
) -> Result | None:
    """Read and write the streams of a command that runs on a channel until it ends; None: the channel ended first.

    `mark` is what comes before the command's own output; see `line_of`. The line callback runs in the thread that
    calls, and hears nothing more once it is `late`. Raises CommandFailed when it prints too much, and what `on_line`
    raises.
    """
    output = Output(command, on_line)
    out, err = Begin(mark, output.out), Begin(mark, output.err)
    heard: queue.Queue[_Heard] = queue.Queue(_PIECES)
    over = threading.Event()

    def tell(what: _Heard) -> None:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                heard.put(what, timeout=_AGAIN_SECONDS)
                return

    def read(receive: Callable[[int], bytes], take: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError):
            while data := receive(_PIECE):
                tell((take, data))
        tell((take, b""))

    def write() -> None:
        with contextlib.suppress(OSError):  # it ended without reading: its exit code tells
            if command.input:
                channel.sendall(command.input)
            channel.shutdown_write()

    def end() -> None:
        channel.status_event.wait()
        tell((_ended, b""))

    for work in (lambda: read(channel.recv, out), lambda: read(channel.recv_stderr, err), write, end):
        threading.Thread(target=work, daemon=True).start()
    try:
        _take(heard, {out, err, _ended}, late)
    finally:
        over.set()
    if late.is_set() or channel.exit_status == _UNKNOWN:
        return None
    out.finish()
    err.finish()
    output.finish()
    return output.result(channel.exit_status)


def _ended(_: bytes) -> None:
    """The command has ended: its exit status has come."""


def _take(heard: queue.Queue[_Heard], open_: set[Callable[[bytes], None]], late: threading.Event) -> None:
    """Take what is heard until all that is open has ended, or the command has and its outputs are silent."""
    while open_ and not late.is_set():
        try:
            take, data = heard.get(timeout=None if _ended in open_ else LINGER_SECONDS)
        except queue.Empty:
            return
        if data:
            take(data)
        else:
            open_.discard(take)


def end(transport: Any, channel: Any, seconds: float) -> None:
    """End the command on a channel: SIGTERM, SIGKILL after `seconds`; then close the channel."""
    if channel.closed:  # its number may be another's by now
        return
    transport.signal(channel, "TERM")
    channel.status_event.wait(seconds)
    if not channel.closed:
        transport.signal(channel, "KILL")  # also to what it has left in its session
    channel.close()


def new_mark() -> bytes:
    """Return what no login shell prints."""
    return f"mailstack-{secrets.token_hex(8)}:".encode()


def line_of(command: Command, mark: bytes) -> str:
    """Return the command as one line for the user's login shell: that is all that SSH carries (RFC 4254, section 6.5).

    The mark is printed first, on both outputs. The command takes the place of the shell: it is what sshd sends a signal
    to, and whose end it tells.
    """
    settings = [f"{name}={value}" for name, value in command.environment.items()]
    begun = ("sh", "-c", _BEGIN, mark.decode(), *(("env", *settings) if settings else ()))
    return f"exec {shlex.join((*begun, *command.argv))}"
