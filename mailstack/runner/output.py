"""What a command prints, here or on a host over SSH: bounded, decoded, and told line by line."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from mailstack.errors import CommandFailed, Interrupted
from mailstack.model import Command, Result

LineSink = Callable[[str], None]

# How much of standard output a command may print, and how much of the end of standard error is kept; in bytes.
STDOUT_BYTES, STDERR_BYTES = 64 << 20, 4 << 20
# A longer line comes in pieces; in bytes.
LINE_BYTES = 1 << 16


def shown(command: Command) -> str:
    """Return the command as a person would type it, without its environment and input."""
    import shlex

    return shlex.join((Path(command.argv[0]).name, *command.argv[1:]))


class Output:
    """What a command prints: standard output whole, the last lines of standard error, each told as it comes."""

    def __init__(self, command: Command, on_line: LineSink | None = None) -> None:
        self._command = command
        self._on_line = on_line
        self._stdout: list[bytes] = []
        self._stdout_size = 0
        self._lines: deque[bytes] = deque()
        self._lines_size = 0
        self._begun = b""  # a line of standard error without its end
        self._untold: deque[bytes] = deque()  # lines that come after one whose callback has raised

    def out(self, data: bytes) -> None:
        """Take a piece of standard output. Raises CommandFailed when it is too much."""
        before, self._stdout_size = self._stdout_size, self._stdout_size + len(data)
        if self._stdout_size <= STDOUT_BYTES:
            self._stdout.append(data)
        elif before <= STDOUT_BYTES:
            self._stdout.clear()
            raise CommandFailed(f"`{shown(self._command)}` printed more than {STDOUT_BYTES >> 20} MiB")

    def err(self, data: bytes) -> None:
        """Take a piece of standard error; whatever the line callback raises is raised, and it is called no more."""
        *whole, self._begun = (self._begun + data).split(b"\n")
        self._untold += whole
        while len(self._begun) >= LINE_BYTES:
            self._untold.append(self._begun[:LINE_BYTES])
            self._begun = self._begun[LINE_BYTES:]
        while self._untold:
            line = self._untold.popleft()
            if len(line) > LINE_BYTES:
                self._untold.appendleft(line[LINE_BYTES:])
            self._take(line[:LINE_BYTES])

    def finish(self) -> None:
        """Take what was begun as the last line."""
        if self._begun:
            self.err(b"\n")

    def _take(self, line: bytes) -> None:
        self._lines.append(line)
        self._lines_size += len(line) + 1
        while self._lines_size > STDERR_BYTES:
            self._lines_size -= len(self._lines.popleft()) + 1
        if self._on_line:
            try:
                self._on_line(line.decode(errors="replace"))
            except Interrupted:
                raise  # by a signal's handler: the command's last words are still wanted
            except Exception:
                self._on_line = None
                raise

    def result(self, code: int) -> Result:
        """Return what the command left behind."""
        stdout, stderr = b"".join(self._stdout), b"\n".join(self._lines)
        return Result(code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
