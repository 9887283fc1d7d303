"""A child process: its streams, its deadline and its exit, in one loop. Only this module starts processes.

The calling thread reads and writes all streams at once, so that none of them fills up while it waits for another. Line
callbacks run in that thread: their exceptions reach the caller after the child has been ended.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any

from mailstack.errors import DeadlinePassed, HostError, Interrupted
from mailstack.model import Command, Deadline, Result
from mailstack.runner.output import LineSink, Output, shell_line

PIPE, DEVNULL, TO_STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT

# Time between SIGTERM and SIGKILL, in seconds: when the child is interrupted, and when its deadline has passed.
INTERRUPTED_SECONDS, LATE_SECONDS = 10.0, 1.0
# How long the outputs are read after the child's exit, in seconds, while a process it left behind holds them open and
# prints nothing.
LINGER_SECONDS = 1.0

_PIECE = 1 << 16
_LONGEST_SELECT = 3600.0  # seconds; epoll(7) accepts no more than a few days


class _Process:
    """The process: its start, its id and its exit.

    A thread starts the process and waits for it, for two reasons. An interruption reaches only the main thread, so it
    cannot come between the start and the record of the process id. And the exit is noticed at once, while `Popen.wait`
    with a timeout polls every 50 ms. The process id is reserved until `close`, so that no signal reaches another
    process.
    """

    def __init__(self, command: Command, session: bool, **options: Any) -> None:
        self.ended = threading.Event()
        self.code: int | None = None  # the exit code once the process has exited; -N: by signal N
        self.popen: subprocess.Popen[bytes] | None = None
        self.exit_pipe, self._exit_writer = os.pipe()  # readable once the process has exited
        self._command, self._session = command, session
        self._options = {**options, "env": {**os.environ, **command.environment}, "start_new_session": session}
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._cancelled = False
        self._started, self._closed = threading.Event(), threading.Event()
        self._finished = threading.Event()  # the thread has finished

    def start(self) -> None:
        """Start the process. Raises HostError."""
        # threading.Thread would be left inconsistent by an interruption within `start` (a KeyError).
        _thread.start_new_thread(self._run, ())
        self._started.wait()
        if isinstance(self._failure, OSError):
            raise HostError(f"{self._command.argv[0]}: cannot be run: {self._failure.strerror}") from None
        if self._failure:
            raise self._failure

    def exit_code(self) -> int:
        """Return the exit code. Raises HostError when it is not known."""
        if self.code is None:
            raise HostError(
                f"`{shell_line(self._command)}`: its exit code is unknown, because SIGCHLD is ignored",
                remedy="start this process with SIGCHLD at its default: see signal(7)",
            )
        return self.code

    def cancel(self) -> None:
        """Cancel the start, if the process has not been started yet."""
        with self._lock:
            self._cancelled = True

    def signal(self, number: int, *, everyone: bool = False) -> None:
        """Send a signal to the process, or to `everyone` in its session, if permitted (sudo's child runs as root)."""
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self.popen and not self._closed.is_set():
                send = os.killpg if everyone and self._session else os.kill
                send(self.popen.pid, number)

    def close(self) -> None:
        """Close the streams and release the process, whether or not it has exited."""
        with self._lock:
            self._closed.set()
        os.close(self.exit_pipe)
        if self.popen:
            for stream in filter(None, (self.popen.stdin, self.popen.stdout, self.popen.stderr)):
                with contextlib.suppress(OSError):  # input that the process did not read
                    stream.close()
        if self.ended.is_set():
            self._finished.wait()

    def _run(self) -> None:
        try:
            with self._lock:
                if not self._cancelled:
                    self.popen = subprocess.Popen(self._command.argv, **self._options)
        except Exception as error:  # raised in the waiting thread
            self._failure = error
        self._started.set()
        if self.popen:
            # Do not reap the process yet: until then its id is not reused (waitid(2)).
            with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored: the kernel reaps
                status = os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOWAIT)
                if status:
                    self.code = status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
            self.ended.set()
            with contextlib.suppress(OSError):
                os.write(self._exit_writer, b".")
            self._closed.wait()
            self.popen.wait()
        os.close(self._exit_writer)
        self._finished.set()


class Child:
    """A process with its streams, run to its end."""

    def __init__(
        self,
        command: Command,
        *,
        inherited: Sequence[int] = (),
        session: bool = True,  # a session of its own: this process handles Ctrl-C and the end of the terminal
        **streams: Any,  # stdin, stdout, stderr, cwd: as Popen takes them
    ) -> None:
        self.command, self._process = command, _Process(command, session, pass_fds=tuple(inherited), **streams)
        self.ended, self.signal, self.start = self._process.ended, self._process.signal, self._process.start
        self._selector = selectors.DefaultSelector()
        self._linger: Deadline | None = None
        self._unwritten = memoryview(command.input or b"")

    @property
    def code(self) -> int | None:
        """The exit code once the process has exited; -N: by signal N."""
        return self._process.code

    def run(self, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Start the process and run it to its end. Any exception meanwhile ends the process first.

        Raises HostError, DeadlinePassed, CommandFailed when it prints too much, and the exceptions of `on_line`.
        """
        output = Output(self.command, on_line)
        try:
            self.start()
            self._listen(output)
            self._transfer(deadline)
            if self._linger is None:
                seconds = deadline.seconds if deadline else 0
                raise DeadlinePassed(f"`{shell_line(self.command)}` did not finish within {seconds:g} s")
            code = self._process.exit_code()
            output.finish()
            return output.result(code)
        except BaseException as error:
            self._end_session(error, deadline)
            raise
        finally:
            self.close()

    def release(self) -> None:
        """Start the process and let it outlive this one; `code` is its exit code later. Raises HostError."""
        try:
            self.start()
        except BaseException as error:
            self._end_session(error, None)
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Close the streams and release the process, whether or not it has exited."""
        for key in list(self._selector.get_map().values()):
            self._close_stream(key.fd)
        self._selector.close()
        self._process.close()

    # ── the loop ───────────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self, output: Output) -> None:
        process, read, write = self._process.popen, selectors.EVENT_READ, selectors.EVENT_WRITE
        assert process
        self._selector.register(self._process.exit_pipe, read, self._on_exit)
        for stream, take in ((process.stdout, output.out), (process.stderr, output.err)):
            if stream:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, read, lambda fd, take=take: self._read(fd, take))
        if process.stdin:
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, write, self._write)

    def _transfer(self, deadline: Deadline | None) -> None:
        """Read and write until the process and its outputs have ended, or the deadline has passed."""
        while self._selector.get_map():
            limits = [each.remaining() for each in (deadline, self._linger) if each]
            ready = self._selector.select(min([*limits, _LONGEST_SELECT]))
            late = deadline is not None and deadline.passed()
            if (late and self._linger is None) or (not ready and self._linger and self._linger.passed()):
                return
            for key, _ in ready:  # also after the deadline: read what the process has left in its pipes
                if key.fd in self._selector.get_map():
                    key.data(key.fd)
            if late:
                return

    def _on_exit(self, exit_pipe: int) -> None:
        self._selector.unregister(exit_pipe)
        self._linger = Deadline.after(LINGER_SECONDS)
        stdin = self._process.popen and self._process.popen.stdin
        if stdin and not stdin.closed:
            self._close_stream(stdin.fileno())

    def _read(self, fd: int, take: Callable[[bytes], None]) -> None:
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return
        if not data:
            self._close_stream(fd)
            return
        if self._linger:
            self._linger = Deadline.after(LINGER_SECONDS)
        take(data)

    def _write(self, fd: int) -> None:
        try:
            self._unwritten = self._unwritten[os.write(fd, self._unwritten[:_PIECE]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unwritten = self._unwritten[:0]  # the process does not read any more: its exit code tells why
        if not self._unwritten:
            self._close_stream(fd)

    def _close_stream(self, fd: int) -> None:
        """Stop reading or writing this stream, and close it."""
        with contextlib.suppress(KeyError):
            file = self._selector.unregister(fd).fileobj
            if not isinstance(file, int):
                with contextlib.suppress(OSError):
                    file.close()  # type: ignore[attr-defined]

    def _end_session(self, reason: BaseException, deadline: Deadline | None) -> None:
        """End the process and all processes of its session: SIGTERM, then SIGKILL."""
        self._process.cancel()
        try:
            for number, seconds in ((signal.SIGTERM, _grace_seconds(reason, deadline)), (signal.SIGKILL, LATE_SECONDS)):
                self.signal(number, everyone=True)
                self._drain(Deadline.after(seconds), reason)
                if not self._process.popen or (self.ended.is_set() and not self._selector.get_map()):
                    break
        finally:
            self.signal(signal.SIGKILL, everyone=True)

    def _drain(self, deadline: Deadline, reason: BaseException) -> None:
        """Wait for the process to exit, and read its last output."""
        while True:
            try:
                self._transfer(deadline)
                break
            except Exception as error:  # at most once: the callback is not called any more then
                reason.add_note(f"and while `{shell_line(self.command)}` was being ended: {error}")
        if self._process.popen and self._linger is None:
            self.ended.wait(deadline.remaining())


def _grace_seconds(reason: BaseException, deadline: Deadline | None) -> float:
    """Return the time between SIGTERM and SIGKILL, in seconds."""
    if not isinstance(reason, KeyboardInterrupt | Interrupted):
        return LATE_SECONDS
    left = deadline.remaining() if deadline else INTERRUPTED_SECONDS
    return min(INTERRUPTED_SECONDS, max(LATE_SECONDS, left))
