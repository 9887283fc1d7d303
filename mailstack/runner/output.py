"""The output of a command, here or on a host over SSH: limited, decoded, and passed on line by line."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from mailstack.errors import CommandFailed
from mailstack.model import Command, Result

LineSink = Callable[[str], None]

# Limits in bytes: of all standard output, and of the end of standard error that is kept.
STDOUT_BYTES, STDERR_BYTES = 64 << 20, 4 << 20
# A longer line is passed on in pieces; in bytes.
LINE_BYTES = 1 << 16


def shell_line(command: Command) -> str:
    """Return the command as a user types it, without its environment and input."""
    import shlex

    return shlex.join((Path(command.argv[0]).name, *command.argv[1:]))


class Output:
    """A command's standard output in full, and the last lines of standard error. Each line is passed on as it comes."""

    def __init__(self, command: Command, on_line: LineSink | None = None) -> None:
        self._command = command
        self._on_line = on_line
        self._stdout: list[bytes] = []
        self._stdout_size = 0
        self._lines: deque[bytes] = deque()
        self._lines_size = 0
        self._partial = b""  # an incomplete line of standard error
        self._pending: deque[bytes] = deque()  # lines after one whose callback raised

    def out(self, data: bytes) -> None:
        """Add a piece of standard output. Raises CommandFailed when there is too much of it."""
        before, self._stdout_size = self._stdout_size, self._stdout_size + len(data)
        if self._stdout_size <= STDOUT_BYTES:
            self._stdout.append(data)
        elif before <= STDOUT_BYTES:
            self._stdout.clear()
            raise CommandFailed(f"`{shell_line(self._command)}` printed more than {STDOUT_BYTES >> 20} MiB")

    def err(self, data: bytes) -> None:
        """Add a piece of standard error. Raises the exception of the line callback, which is not called again then."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._pending += lines
        while len(self._partial) >= LINE_BYTES:
            self._pending.append(self._partial[:LINE_BYTES])
            self._partial = self._partial[LINE_BYTES:]
        while self._pending:
            line = self._pending.popleft()
            if len(line) > LINE_BYTES:
                self._pending.appendleft(line[LINE_BYTES:])
            self._take(line[:LINE_BYTES])

    def finish(self) -> None:
        """Add an incomplete line as the last line."""
        if self._partial:
            self.err(b"\n")

    def _take(self, line: bytes) -> None:
        self._lines.append(line)
        self._lines_size += len(line) + 1
        while self._lines_size > STDERR_BYTES:
            self._lines_size -= len(self._lines.popleft()) + 1
        if self._on_line:
            try:
                self._on_line(line.decode(errors="replace"))
            except Exception:  # no interruption: then the callback still gets the command's last output
                self._on_line = None
                raise

    def result(self, code: int) -> Result:
        """Return the command's result."""
        stdout, stderr = b"".join(self._stdout), b"\n".join(self._lines)
        return Result(code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
