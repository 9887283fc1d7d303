"""A child process: its streams, its deadline and its end, in one loop. The only module that starts processes.

The thread that calls reads and writes all streams at once, so none of them fills up while another is waited for. Line
callbacks run in that thread: what they raise reaches the caller, after the child has been ended.
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
from typing import IO

from mailstack.errors import DeadlinePassed, HostError, Interrupted
from mailstack.model import Command, Deadline, Result
from mailstack.printed import LineSink, Output, shown

PIPE, NOWHERE, TO_STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT

# How long, in seconds, a child has between SIGTERM and SIGKILL: when it is interrupted, and when its deadline passed.
INTERRUPTED_SECONDS, LATE_SECONDS = 10.0, 1.0
# How long its outputs are read after its end while a child of its own holds them open and prints nothing; in seconds.
LINGER_SECONDS = 1.0

_PIECE = 1 << 16
_LONGEST_SELECT = 3600.0  # seconds; epoll(7) takes no more than a few days


class Child:
    """One process. Its number stays its own until `close`, so no signal reaches another process."""

    def __init__(
        self,
        command: Command,
        *,
        inherited: Sequence[int] = (),
        stdin: int | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: int | None = None,
        cwd: str | None = None,
        session: bool = True,  # of its own: Ctrl-C and the terminal's end are this process's to handle
    ) -> None:
        self.command = command
        self.code: int | None = None  # its exit code once it has ended; -N: by signal N
        self.ended = threading.Event()
        self._session = session
        self._how = {
            "env": {**os.environ, **command.environment},
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
            "cwd": cwd,
            "pass_fds": tuple(inherited),
            "start_new_session": session,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._given_up = False
        self._born, self._closed = threading.Event(), threading.Event()
        self._bell, self._ringer = os.pipe()
        self._over = threading.Event()  # the thread that started it has nothing more to do
        self._selector = selectors.DefaultSelector()
        self._linger: Deadline | None = None
        self._rest = memoryview(command.input or b"")

    def start(self) -> None:
        """Start it. Raises HostError."""
        # By a thread, since an interruption comes to the main one: never between a process's birth and its being known.
        # And that thread hears of its end at once, where `Popen.wait` with a timeout would look each 50 ms.
        # Not by threading.Thread, whose bookkeeping an interruption within `start` leaves in disorder (a KeyError).
        _thread.start_new_thread(self._live, ())
        self._born.wait()
        if isinstance(self._failure, OSError):
            raise HostError(f"{self.command.argv[0]}: cannot be run: {self._failure.strerror}") from None
        if self._failure:
            raise self._failure

    def run(self, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Start it and run it to its end; when anything is raised meanwhile, it is ended first.

        Raises HostError, DeadlinePassed, CommandFailed when it prints too much, and what `on_line` raises.
        """
        output = Output(self.command, on_line)
        try:
            self.start()
            self._listen(output)
            self._carry(deadline)
            if self._linger is None:
                seconds = deadline.seconds if deadline else 0
                raise DeadlinePassed(f"`{shown(self.command)}` was not done within {seconds:g} s")
            if self.code is None:
                raise HostError(
                    f"`{shown(self.command)}`: how it ended is not known, since SIGCHLD is ignored",
                    remedy="start this process with SIGCHLD at its default: see signal(7)",
                )
            output.finish()
            return output.result(self.code)
        except BaseException as error:
            self._end(error, deadline)
            raise
        finally:
            self.close()

    def release(self) -> None:
        """Start it, and let it outlive this process; `code` says how it ended. Raises HostError."""
        try:
            self.start()
        except BaseException as error:
            self._end(error, None)
            raise
        finally:
            self.close()

    def signal(self, number: int, *, everyone: bool = False) -> None:
        """Send a signal to it, or to `everyone` in its session, if it may be sent one (sudo's child is root's)."""
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process and not self._closed.is_set():
                send = os.killpg if everyone and self._session else os.kill
                send(self._process.pid, number)

    def close(self) -> None:
        """Close the streams; the process is let go of, whether or not it has ended."""
        for key in list(self._selector.get_map().values()):
            self._drop(key.fd)
        self._selector.close()
        with self._lock:
            self._closed.set()
        os.close(self._bell)
        if self._process:
            for stream in filter(None, (self._process.stdin, self._process.stdout, self._process.stderr)):
                with contextlib.suppress(OSError):  # what it was written and did not read
                    stream.close()
        if self.ended.is_set():
            self._over.wait()

    def _live(self) -> None:
        try:
            with self._lock:
                if not self._given_up:
                    self._process = subprocess.Popen(self.command.argv, **self._how)  # type: ignore[call-overload]
        except Exception as error:  # for the thread that waits
            self._failure = error
        self._born.set()
        if self._process:
            # Not reaped yet: until then nobody else gets its number (waitid(2)).
            with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored: the kernel reaps
                how = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
                if how:
                    self.code = how.si_status if how.si_code == os.CLD_EXITED else -how.si_status
            self.ended.set()
            with contextlib.suppress(OSError):
                os.write(self._ringer, b".")
            self._closed.wait()
            self._process.wait()
        os.close(self._ringer)
        self._over.set()

    # ── the loop ───────────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self, output: Output) -> None:
        assert self._process
        process, read, write = self._process, selectors.EVENT_READ, selectors.EVENT_WRITE
        self._selector.register(self._bell, read, self._rang)
        for stream, take in ((process.stdout, output.out), (process.stderr, output.err)):
            if stream:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, read, lambda fd, take=take: self._read(fd, take))
        if process.stdin:
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, write, self._write)

    def _carry(self, deadline: Deadline | None) -> None:
        """Read and write until the process and its outputs have ended, or the deadline has passed."""
        while self._selector.get_map():
            left = [each.remaining() for each in (deadline, self._linger) if each]
            ready = self._selector.select(min([*left, _LONGEST_SELECT]))
            late = deadline is not None and deadline.passed()
            if (late and self._linger is None) or (not ready and self._linger and self._linger.passed()):
                return
            for key, _ in ready:  # once more when it is late: what an ended process has left in its pipes
                if key.fd in self._selector.get_map():
                    key.data(key.fd)
            if late:
                return

    def _rang(self, bell: int) -> None:
        self._selector.unregister(bell)
        self._linger = Deadline.after(LINGER_SECONDS)
        if self._process and self._process.stdin and not self._process.stdin.closed:
            self._drop(self._process.stdin.fileno())

    def _read(self, fd: int, take: Callable[[bytes], None]) -> None:
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return
        if not data:
            self._drop(fd)
            return
        if self._linger:
            self._linger = Deadline.after(LINGER_SECONDS)
        take(data)

    def _write(self, fd: int) -> None:
        try:
            self._rest = self._rest[os.write(fd, self._rest[:_PIECE]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._rest = self._rest[:0]  # it reads no more: its exit code tells
        if not self._rest:
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        """Neither read nor write this stream any more."""
        with contextlib.suppress(KeyError):
            file = self._selector.unregister(fd).fileobj
            if not isinstance(file, int):
                with contextlib.suppress(OSError):
                    file.close()  # type: ignore[attr-defined]

    def _end(self, reason: BaseException, deadline: Deadline | None) -> None:
        """End it, and whatever it has started: SIGTERM, then SIGKILL."""
        with self._lock:
            self._given_up = True
        patience = LATE_SECONDS
        if isinstance(reason, KeyboardInterrupt | Interrupted):
            left = deadline.remaining() if deadline else INTERRUPTED_SECONDS
            patience = min(INTERRUPTED_SECONDS, max(LATE_SECONDS, left))
        try:
            for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, LATE_SECONDS)):
                self.signal(number, everyone=True)
                self._hear_out(Deadline.after(seconds), reason)
                if not self._process or (self.ended.is_set() and not self._selector.get_map()):
                    break
        finally:
            self.signal(signal.SIGKILL, everyone=True)

    def _hear_out(self, deadline: Deadline, reason: BaseException) -> None:
        """Wait for its end and its last words."""
        while True:
            try:
                self._carry(deadline)
                break
            except Interrupted:
                raise
            except Exception as error:  # once only: then it is not told any more
                reason.add_note(f"and while `{shown(self.command)}` was being ended: {error}")
        if self._process and self._linger is None:
            self.ended.wait(deadline.remaining())
