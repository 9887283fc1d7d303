"""A host over SSH: the only room that uses Fabric, and what is below it.

`login` opens the connection, this module runs commands over it, and leads to sockets and ports.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import socket
import termios
import time
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from mailstack.errors import DeadlinePassed, HostError
from mailstack.model import Command, Deadline, Result
from mailstack.runner.output import LineSink, shown
from mailstack.secret import Secret
from mailstack.ssh import execution, login
from mailstack.ssh.address import Host
from mailstack.ssh.transport import STREAM_LOCAL

P = ParamSpec("P")
T = TypeVar("T")

# Until the host has answered; in seconds.
CONNECT_SECONDS = 10
# After this time without an answer the connection counts as cut; in seconds.
SILENCE_SECONDS = 10
_KEEPALIVE_SECONDS = 3
_PIECE = 1 << 16
# How long a command has between SIGTERM and SIGKILL; in seconds.
LATE_SECONDS = 1.0


def _mapped(function: Callable[P, T]) -> Callable[P, T]:
    """Turn what SSH's library raises into a HostError that names the host."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        self = args[0]
        assert isinstance(self, Remote)
        with login.mapped(self.host):
            return function(*args, **kwargs)

    return inner


class Remote:
    """One connection to a host."""

    def __init__(self, host: Host, answers: Mapping[str, Secret]) -> None:
        """`answers`: what the user has said to each question that Refused has come with."""
        self.host = host
        self._answers = answers
        self._hops: list[Any] = []
        self._connection: Any = None  # the last of them

    # ── the connection ─────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Connect and log in. Raises HostError; Refused when none of the user's keys will do."""
        self._hops = login.enter(self.host, self._answers)
        self._connection = self._hops[-1]
        self._watch_the_line()

    def _watch_the_line(self) -> None:
        """Have the connection end when the host answers no more, whether or not what lies between still does."""
        import threading

        line = self._hops[0].transport.sock
        if isinstance(line, socket.socket):  # else a program's, of ProxyCommand
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)  # tcp(7)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._ask_for_life, daemon=True).start()
        threading.Thread(target=self._listen_for_life, args=(line,), daemon=True).start()

    def _ask_for_life(self) -> None:
        """As ssh_config(5), ServerAliveInterval: every host answers, if only that it knows no such request."""
        transport = self._connection.transport
        with contextlib.suppress(OSError, EOFError):
            while transport.is_active():
                transport.global_request("keepalive@openssh.com", wait=True)
                time.sleep(_KEEPALIVE_SECONDS)

    def _listen_for_life(self, line: Any) -> None:
        transport = self._connection.transport
        while transport.is_active():
            # What has not left this machine yet cannot be answered: then it is for TCP to say.
            if time.monotonic() - transport.heard > SILENCE_SECONDS and not _unsent(line):
                transport.close()
            time.sleep(1)

    def wait(self) -> None:
        """Until the connection has ended, however it does."""
        self._connection.transport.join()

    def close(self) -> None:
        """End the connection."""
        for hop in reversed(self._hops):
            hop.close()

    # ── on the host ────────────────────────────────────────────────────────────────────────────────────────────

    @_mapped
    def session(self) -> Any:
        """A channel on which one command can be run."""
        return self._connection.transport.open_session(timeout=CONNECT_SECONDS)

    def run(
        self,
        command: Command,
        *,
        deadline: Deadline | None = None,
        on_line: LineSink | None = None,
        channel: Any = None,
    ) -> Result:
        """Run a command on the host to its end; see Runs. What nobody may see goes in by `input`.

        `channel`: a `session` of the caller's, who may `end` it. Raises HostError, DeadlinePassed, CommandFailed when
        it prints too much, and what `on_line` raises.
        """
        import threading

        channel, late = channel or self.session(), threading.Event()

        def give_up() -> None:
            if channel.exit_status_ready():  # what holds its outputs open is waited for no longer
                channel.close()
            else:
                late.set()
                self.end(channel)

        timer = threading.Timer(min(deadline.remaining(), threading.TIMEOUT_MAX) if deadline else 0, give_up)
        timer.daemon = True
        if deadline:
            timer.start()
        try:
            mark = self._begin(channel, command)
            result = execution.carry(channel, command, mark, on_line, late)
        except BaseException:
            self.end(channel)
            raise
        finally:
            timer.cancel()
            channel.close()
        if late.is_set() and deadline:
            raise DeadlinePassed(f"{self.host}: `{shown(command)}` was not done within {deadline.seconds:g} s")
        if result is None:
            raise HostError(f"{self.host}: the connection was cut")
        return result

    @_mapped
    def _begin(self, channel: Any, command: Command) -> bytes:
        mark = execution.new_mark()
        channel.exec_command(execution.line_of(command, mark))
        return mark

    def end(self, channel: Any, seconds: float = LATE_SECONDS) -> None:
        """End what runs on a channel (SIGTERM, then SIGKILL after `seconds`), and close it: then `run` is over."""
        execution.end(self._connection.transport, channel, seconds)

    @_mapped
    def socket(self, path: str) -> Any:
        """A connection to a Unix socket of the host's (OpenSSH's PROTOCOL, section 2.4): a channel."""
        transport = self._connection.transport
        with transport.socket_lock:
            transport.socket_path = path
            return transport.open_channel(STREAM_LOCAL, timeout=CONNECT_SECONDS)

    @_mapped
    def port(self, number: int) -> Any:
        """A connection to a port of the host's loopback: a channel."""
        return self._connection.transport.open_channel(
            "direct-tcpip", ("127.0.0.1", number), ("127.0.0.1", 0), timeout=CONNECT_SECONDS
        )

    @_mapped
    def program(self, command: Command, ready: bytes, seconds: float) -> tuple[Any, str]:
        """Start a program on the host whose standard input and output are a channel.

        It is given when the program has printed `ready`; None when it has not within `seconds`, and what it said.
        """
        import threading

        channel, printed, errors = self.session(), bytearray(), bytearray()
        mark = self._begin(channel, command)
        out, err = execution.Begin(mark, printed.extend), execution.Begin(mark, errors.extend)

        def read_errors() -> None:
            with contextlib.suppress(OSError):
                while data := channel.recv_stderr(_PIECE):
                    err(data)
                    del errors[:-_PIECE]
            err.finish()

        timer = threading.Timer(seconds, self.end, (channel,))
        timer.daemon = True
        reader = threading.Thread(target=read_errors, daemon=True)
        timer.start()
        reader.start()
        try:
            while ready not in printed:
                if not (data := channel.recv(_PIECE)):
                    reader.join(seconds)
                    self.end(channel)
                    return None, errors.decode(errors="replace")
                out(data)
        finally:
            timer.cancel()
        return channel, ""


def _unsent(line: Any) -> bool:
    """Whether something stands in a socket's way out (tcp(7), SIOCOUTQ)."""
    if not isinstance(line, socket.socket):
        return False
    return any(fcntl.ioctl(line.fileno(), termios.TIOCOUTQ, bytes(4)))
