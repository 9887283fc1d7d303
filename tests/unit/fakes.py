"""What stands in for the world outside: one runner, made from a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mailstack.model import Command, Deadline, Result
from mailstack.runner import LineSink

OK = Result(0, "", "")


class FakeRunner:
    """A runner whose commands are answered by a function, which may raise; it keeps a record of them."""

    def __init__(
        self,
        answer: Callable[[Command], Result] = lambda command: OK,
        *,
        ended: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._answer = answer
        self._ended = ended
        self.commands: list[Command] = []
        self.detached: list[tuple[Command, Path]] = []
        self.released: list[Command] = []

    @property
    def lines(self) -> list[str]:
        """The commands, each in one line."""
        return [" ".join(command.argv) for command in self.commands]

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Answer `command`, line by line where that is wanted."""
        self.commands.append(command)
        result = self._answer(command)
        if on_line:
            for line in result.stderr.splitlines():
                on_line(line)
        return result

    def holding(self, *descriptors: int) -> FakeRunner:
        """Itself: it starts nothing that could hold them."""
        return self

    def attach(self, command: Command) -> int:
        """Answer `command` with its exit code."""
        return self.run(command).code

    def detach(self, command: Command, log: Path) -> Callable[[], int | None]:
        """Record that `command` was started; how it ends was given at the beginning."""
        self.detached.append((command, log))
        return self._ended

    def release(self, command: Command, *, stdin: int | None = None) -> None:
        """Record that `command` was let go of."""
        self.released.append(command)
