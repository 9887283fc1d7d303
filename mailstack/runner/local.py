"""The one seam for commands: nothing else in this package starts a process.

A runner takes a Command and gives back a Result. `Local` runs it on this machine, by `child`; tests use a function.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mailstack.errors import CommandFailed, HostError, Interrupted
from mailstack.model import Command, Deadline, Result
from mailstack.runner.child import NOWHERE, PIPE, TO_STDOUT, Child
from mailstack.runner.output import LineSink, shown

__all__ = ["LineSink", "Local", "Runner", "Runs", "ending", "last_lines", "must", "program", "shown"]

_AGAIN_SECONDS = 1.0  # between two interruptions of what goes on
_RELEASE_SECONDS = 30.0  # for a shell to start something


class Runs(Protocol):
    """Runs commands somewhere: on this machine, or on a host over SSH."""

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Run to the end; `on_line` sees each line of standard error as it comes, in the thread that called.

        When `on_line` raises, the command is ended, and then the same is raised to the caller.
        """


class Runner(Runs, Protocol):
    """Runs commands on this machine."""

    def holding(self, *descriptors: int) -> Runner:
        """Another runner of the kind, whose children keep these file descriptors open: a lab's lock, say."""

    def attach(self, command: Command) -> int:
        """Run with this process's own terminal, and give its exit code."""

    def detach(self, command: Command, log: Path) -> Callable[[], int | None]:
        """Start what outlives this process; the function given back says how it ended: None while it runs."""

    def release(self, command: Command, *, stdin: int | None = None) -> None:
        """Start what outlives this process and is no child of it; `stdin` is a file descriptor to read from."""


class Local:
    """Runs commands on this machine."""

    def __init__(self, inherited: Sequence[int] = ()) -> None:
        # File descriptors that each child keeps open: a lab's lock is held until the last of them has ended.
        self._inherited = tuple(inherited)
        self._running: set[Child] = set()
        self._interrupted = False
        self._lock = threading.Lock()

    def holding(self, *descriptors: int) -> Local:
        """See Runner."""
        return Local((*self._inherited, *descriptors))

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Run `command`; on Ctrl-C or SIGTERM end it, wait for it, and pass the interruption on.

        Raises HostError when it cannot be started, DeadlinePassed when it was ended for taking too long, CommandFailed
        when it prints more than `output.STDOUT_BYTES`, and what `on_line` raises.
        """
        stdin = PIPE if command.input is not None else NOWHERE
        with self._lock:
            if self._interrupted:
                raise Interrupted("interrupted")
            child = Child(command, inherited=self._inherited, stdin=stdin, stdout=PIPE, stderr=PIPE)
            self._running.add(child)
        try:
            return child.run(deadline, on_line)
        finally:
            with self._lock:
                self._running.discard(child)

    def interrupt(self, deadline: Deadline) -> None:
        """Pass Ctrl-C on to what runs in other threads, which no signal reaches; what has not ended in time is killed.

        Nothing is started any more: `run` raises Interrupted.
        """
        with self._lock:
            self._interrupted = True
            running = list(self._running)
        while running and not deadline.passed():
            # Again and again: one that has just been started may not listen yet. Another one does no harm.
            for child in running:
                child.signal(signal.SIGINT)
            running[0].ended.wait(min(_AGAIN_SECONDS, deadline.remaining()))
            running = [child for child in running if not child.ended.is_set()]
        for child in running:
            child.signal(signal.SIGKILL)

    def attach(self, command: Command) -> int:
        """Run `command` with this process's own standard streams; -N: it was ended by signal N. Raises HostError."""
        return Child(command, inherited=self._inherited, session=False).run().code

    def detach(self, command: Command, log: Path) -> Callable[[], int | None]:
        """Start `command` in a session of its own, with its output added to `log`; see Runner. Raises HostError."""
        try:
            output = log.open("ab")
        except OSError as error:
            raise HostError(f"{log}: cannot be written: {error.strerror}") from None
        with output:
            child = Child(command, stdin=NOWHERE, stdout=output, stderr=TO_STDOUT, cwd="/")
            child.release()
        return lambda: child.code

    def release(self, command: Command, *, stdin: int | None = None) -> None:
        """Start `command` in a session of its own, without output; see Runner. Raises HostError, DeadlinePassed."""
        # By a shell that ends at once: this process need not wait for what it has started.
        argv = ("/bin/sh", "-c", 'exec 3<&0; "$@" <&3 3<&- &', "release", *command.argv)
        shell = Child(
            Command(argv, command.environment),
            stdin=NOWHERE if stdin is None else stdin,
            stdout=NOWHERE,
            stderr=NOWHERE,
            cwd="/",
        )
        code = shell.run(Deadline.after(_RELEASE_SECONDS)).code
        if code != 0:
            raise HostError(f"{command.argv[0]}: cannot be run: the shell {ending(code)}")


def program(module: str, *words: str, environment: Mapping[str, str]) -> Command:
    """A module of this package as a program of its own, also from a checkout that may not be installed."""
    package, found = Path(__file__).parent.parent.parent, dict(environment)
    if package.name not in ("site-packages", "dist-packages"):
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    return Command((sys.executable, "-m", module, *words), found)


def ending(code: int) -> str:
    """Return how a command ended, for people: its exit code, or the signal that ended it."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def must(
    runner: Runs, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None
) -> Result:
    """Run `command`, and raise CommandFailed with its last lines when it did not end with 0."""
    result = runner.run(command, deadline=deadline, on_line=on_line)
    if result.code != 0:
        raise CommandFailed(
            f"`{shown(command)}` {ending(result.code)}", details=last_lines(result.stderr or result.stdout)
        )
    return result


def last_lines(text: str, count: int = 12) -> str:
    """The last `count` lines of `text` that say anything."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])
