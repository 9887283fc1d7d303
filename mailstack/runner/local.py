"""Run commands on this machine. No other package starts a process.

A runner takes a Command and returns a Result. `Local` runs it on this machine, by `child`; tests use a function.
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
from mailstack.runner.child import DEVNULL, PIPE, TO_STDOUT, Child
from mailstack.runner.output import LineSink, shell_line

__all__ = [
    "CommandRunner",
    "LineSink",
    "Local",
    "Runner",
    "ending",
    "last_lines",
    "module_command",
    "run_checked",
    "shell_line",
]

_AGAIN_SECONDS = 1.0  # between two interrupts of the running commands
_RELEASE_SECONDS = 30.0  # for the shell to start a process


class CommandRunner(Protocol):
    """Runs commands: on this machine, or on a host over SSH."""

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Run a command to its end. `on_line` is called with each line of standard error, in the calling thread.

        When `on_line` raises, the command is ended, and then the exception reaches the caller.
        """


class Runner(CommandRunner, Protocol):
    """Runs commands on this machine."""

    def holding(self, *descriptors: int) -> Runner:
        """Return a runner whose children keep these file descriptors open: a lab's lock, for example."""

    def attach(self, command: Command) -> int:
        """Run a command on this process's own terminal. Return its exit code."""

    def detach(self, command: Command, log: Path) -> Callable[[], int | None]:
        """Start a process that outlives this one. The returned function gives its exit code, or None while it runs."""

    def release(self, command: Command, *, stdin: int | None = None) -> None:
        """Start a process that outlives this one and is not its child; `stdin` is a file descriptor to read from."""


class Local:
    """Runs commands on this machine."""

    def __init__(self, inherited: Sequence[int] = ()) -> None:
        # Each child keeps these file descriptors open: a lab's lock is held until the last of the children exits.
        self._inherited = tuple(inherited)
        self._running: set[Child] = set()
        self._interrupted = False
        self._lock = threading.Lock()

    def holding(self, *descriptors: int) -> Local:
        return Local((*self._inherited, *descriptors))

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Run `command`. On Ctrl-C or SIGTERM end it, wait for it, and raise the interruption.

        Raises HostError when the command cannot be started, DeadlinePassed when it took too long and was ended,
        CommandFailed when it prints more than `output.STDOUT_BYTES`, and the exceptions of `on_line`.
        """
        stdin = PIPE if command.input is not None else DEVNULL
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
        """Send SIGINT to the commands of other threads, which get no Ctrl-C; kill those that run at the deadline.

        No command is started after that: `run` raises Interrupted.
        """
        with self._lock:
            self._interrupted = True
            running = list(self._running)
        while running and not deadline.passed():
            # Repeat the signal, because a new process may not handle it yet. A second one is harmless.
            for child in running:
                child.signal(signal.SIGINT)
            running[0].ended.wait(min(_AGAIN_SECONDS, deadline.remaining()))
            running = [child for child in running if not child.ended.is_set()]
        for child in running:
            child.signal(signal.SIGKILL)

    def attach(self, command: Command) -> int:
        """Run `command` on this process's standard streams. Return its exit code; -N: signal N. Raises HostError."""
        return Child(command, inherited=self._inherited, session=False).run().code

    def detach(self, command: Command, log: Path) -> Callable[[], int | None]:
        """Start `command` in a session of its own and append its output to `log`; see Runner. Raises HostError."""
        try:
            output = log.open("ab")
        except OSError as error:
            raise HostError(f"{log}: cannot be written: {error.strerror}") from None
        with output:
            child = Child(command, stdin=DEVNULL, stdout=output, stderr=TO_STDOUT, cwd="/")
            child.release()
        return lambda: child.code

    def release(self, command: Command, *, stdin: int | None = None) -> None:
        """Start `command` in a session of its own, without output; see Runner. Raises HostError, DeadlinePassed."""
        # Start it by a shell that exits at once, so that this process need not wait for it.
        argv = ("/bin/sh", "-c", 'exec 3<&0; "$@" <&3 3<&- &', "release", *command.argv)
        shell = Child(
            Command(argv, command.environment),
            stdin=DEVNULL if stdin is None else stdin,
            stdout=DEVNULL,
            stderr=DEVNULL,
            cwd="/",
        )
        code = shell.run(Deadline.after(_RELEASE_SECONDS)).code
        if code != 0:
            raise HostError(f"{command.argv[0]}: cannot be run: the shell {ending(code)}")


def module_command(module: str, *words: str, environment: Mapping[str, str]) -> Command:
    """Return the command that runs a module of this package, also from a checkout that is not installed."""
    package, variables = Path(__file__).parent.parent.parent, dict(environment)
    if package.name not in ("site-packages", "dist-packages"):
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    return Command((sys.executable, "-m", module, *words), variables)


def ending(code: int) -> str:
    """Return a phrase for how a command ended: its exit code, or the signal that ended it."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def run_checked(
    runner: CommandRunner, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None
) -> Result:
    """Run `command`. Raises CommandFailed with its last lines when its exit code is not 0."""
    result = runner.run(command, deadline=deadline, on_line=on_line)
    if result.code != 0:
        raise CommandFailed(
            f"`{shell_line(command)}` {ending(result.code)}", details=last_lines(result.stderr or result.stdout)
        )
    return result


def last_lines(text: str, count: int = 12) -> str:
    """Return the last `count` lines of `text` that are not blank."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])
