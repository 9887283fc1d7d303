"""The one seam for commands: nothing else in this package starts a process.

A runner takes a Command and gives back a Result. `Local` runs it on this machine; tests use a function.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from mailstack.errors import CommandFailed, DeadlinePassed, HostError, Interrupted
from mailstack.model import Command, Deadline, Result

LineSink = Callable[[str], None]

_AGAIN_SECONDS = 1.0  # between two interruptions of what goes on


class Runs(Protocol):
    """Runs commands somewhere: on this machine, or on a host over SSH."""

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Run to the end; `on_line` sees each line of standard error as it comes."""


class Runner(Runs, Protocol):
    """Runs commands on this machine."""

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
        self._running: list[subprocess.Popen[bytes]] = []
        self._interrupted = False
        self._lock = threading.Lock()

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Run `command`; on Ctrl-C or SIGTERM end it, wait for it, and pass the interruption on.

        Raises HostError when it cannot be started, DeadlinePassed when it was ended for taking too long.
        """
        begun: list[subprocess.Popen[bytes] | Exception] = []
        started = threading.Event()
        lines: list[str] = []
        output: list[bytes] = []

        def child() -> None:
            try:
                begun.append(self._start(command))
            except Exception as error:  # for the thread that waits
                begun.append(error)
            started.set()
            if isinstance(begun[0], subprocess.Popen):
                begun[0].wait()

        def read_errors(stream: IO[bytes] | None) -> None:
            for raw in stream or ():
                line = raw.decode(errors="replace").rstrip("\n")
                lines.append(line)
                if on_line:
                    on_line(line)

        def read_output(stream: IO[bytes] | None) -> None:
            output.append(stream.read() if stream else b"")

        # By a thread, since an interruption comes to the main one: never between a process's birth and its being known.
        # And it is told of its end at once, where `Popen.wait` with a timeout would look each 50 ms.
        life = threading.Thread(target=child, daemon=True)
        readers: list[threading.Thread] = []
        try:
            life.start()
            started.wait()
            process = begun[0]
            if isinstance(process, Exception):
                raise process
            streams = ((process.stderr, read_errors), (process.stdout, read_output))
            for stream, read in streams:
                readers.append(threading.Thread(target=read, args=(stream,), daemon=True))
                readers[-1].start()
            if process.stdin:
                try:
                    process.stdin.write(command.input or b"")
                    process.stdin.close()
                except BrokenPipeError:
                    pass  # it ended without reading: its exit code tells
            life.join(deadline.remaining() if deadline else None)
        except (KeyboardInterrupt, Interrupted):
            if life.ident is not None:
                started.wait()
                _end(begun[0])
                for reader in filter(threading.Thread.is_alive, readers):
                    reader.join(1)  # its last words, unless a child of its own has yet to speak
            raise
        if deadline and life.is_alive():
            _end(process)
            raise DeadlinePassed(f"`{shown(command)}` was not done within {deadline.seconds:g} s")
        for reader, (stream, _) in zip(readers, streams, strict=True):
            reader.join()
            if stream:
                stream.close()
        return Result(process.returncode, b"".join(output).decode(errors="replace"), "\n".join(lines))

    def interrupt(self, deadline: Deadline) -> None:
        """Pass Ctrl-C on to what runs in other threads, which no signal reaches; what has not ended in time is killed.

        Nothing is started any more: `run` raises Interrupted.
        """
        with self._lock:
            self._interrupted = True
            running = list(self._running)
        while running and not deadline.passed():
            # Again and again: one that has just been started may not listen yet. Who has heard it does not mind.
            for process in running:
                process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running[0].wait(min(_AGAIN_SECONDS, deadline.remaining()))
            running = [process for process in running if process.poll() is None]
        for process in running:
            process.kill()

    def attach(self, command: Command) -> int:
        """Run `command` with this process's own standard streams."""
        try:
            return subprocess.call(command.argv, env={**os.environ, **command.environment}, pass_fds=self._inherited)
        except OSError as error:
            raise HostError(f"{command.argv[0]}: cannot be run: {error.strerror}") from None

    def detach(self, command: Command, log: Path) -> Callable[[], int | None]:
        """Start `command` in a session of its own, with its output added to `log`; see Runner."""
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    command.argv,
                    env={**os.environ, **command.environment},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # neither Ctrl-C nor the terminal's end reaches it
                )
        except OSError as error:
            raise HostError(f"{error.filename or command.argv[0]}: cannot be run: {error.strerror}") from None
        return process.poll

    def release(self, command: Command, *, stdin: int | None = None) -> None:
        """Start `command` in a session of its own, without output; see Runner. Raises HostError."""
        # By a shell that ends at once: this process need not wait for what it has started.
        argv = ("/bin/sh", "-c", 'exec 3<&0; "$@" <&3 3<&- &', "release", *command.argv)
        try:
            subprocess.run(
                argv,
                check=True,
                env={**os.environ, **command.environment},
                cwd="/",
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # neither Ctrl-C nor the terminal's end reaches it
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise HostError(f"{command.argv[0]}: cannot be run: {error}") from None

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._interrupted:
                raise Interrupted("interrupted")
            try:
                process = subprocess.Popen(
                    command.argv,
                    env={**os.environ, **command.environment},
                    stdin=subprocess.PIPE if command.input is not None else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=self._inherited,
                    start_new_session=True,  # Ctrl-C is this process's to handle: it ends the child, then tidies up
                )
            except OSError as error:
                raise HostError(f"{command.argv[0]}: cannot be run: {error.strerror}") from None
            self._running = [each for each in self._running if each.returncode is None]
            self._running.append(process)
            return process


def _end(process: subprocess.Popen[bytes] | Exception) -> None:
    if isinstance(process, Exception):
        return
    with contextlib.suppress(PermissionError):  # sudo's child is root's: it ends by itself, or not at all
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def program(module: str, *words: str, environment: Mapping[str, str]) -> Command:
    """A module of this package as a program of its own, also from a checkout that may not be installed."""
    package, found = Path(__file__).parent.parent, dict(environment)
    if package.name not in ("site-packages", "dist-packages"):
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    return Command((sys.executable, "-m", module, *words), found)


def shown(command: Command) -> str:
    """The command as a person would type it, without its environment and input."""
    import shlex

    return shlex.join((Path(command.argv[0]).name, *command.argv[1:]))


def must(
    runner: Runs, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None
) -> Result:
    """Run `command`, and raise CommandFailed with its last lines when it did not end with 0."""
    result = runner.run(command, deadline=deadline, on_line=on_line)
    if result.code != 0:
        raise CommandFailed(
            f"`{shown(command)}` ended with code {result.code}", details=last_lines(result.stderr or result.stdout)
        )
    return result


def last_lines(text: str, count: int = 12) -> str:
    """The last `count` lines of `text` that say anything."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])
