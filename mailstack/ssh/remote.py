"""A connection to a host over SSH. Only this package uses Fabric and the libraries below it.

`login` opens the connection. This module runs commands over it, and connects to sockets and ports of the host.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import socket
import termios
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from mailstack.errors import DeadlinePassed, HostError
from mailstack.model import Command, Deadline, Result
from mailstack.runner.output import LineSink, shell_line
from mailstack.secret import Secret
from mailstack.ssh import execution, login
from mailstack.ssh.address import Host
from mailstack.ssh.transport import STREAM_LOCAL

P = ParamSpec("P")
T = TypeVar("T")

# Timeout until the host answers; in seconds.
CONNECT_SECONDS = 10
# After this time without an answer the connection counts as cut; in seconds.
SILENCE_SECONDS = 10
_KEEPALIVE_SECONDS = 3
_PIECE = 1 << 16
# Time between SIGTERM and SIGKILL for a command; in seconds.
LATE_SECONDS = 1.0


def _mapped(function: Callable[P, T]) -> Callable[P, T]:
    """Map errors of the SSH library to a HostError that names the host."""

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
        """Take the user's `answers` to the questions of Refused."""
        self.host = host
        self._answers = answers
        self._hops: list[Any] = []
        self._connection: Any = None  # the last of `_hops`

    # ── the connection ─────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Connect and log in. Raises HostError; Refused when none of the user's keys is accepted."""
        self._hops = login.log_in(self.host, self._answers)
        self._connection = self._hops[-1]
        _watch_connection(self._hops[0].transport.sock, self._connection.transport)

    def wait(self) -> None:
        """Wait until the connection ends for any reason."""
        self._connection.transport.join()

    def close(self) -> None:
        """Close the connection."""
        for hop in reversed(self._hops):
            hop.close()

    # ── on the host ────────────────────────────────────────────────────────────────────────────────────────────

    @_mapped
    def session(self) -> Any:
        """Return a channel for one command."""
        return self._connection.transport.open_session(timeout=CONNECT_SECONDS)

    def run(
        self,
        command: Command,
        *,
        deadline: Deadline | None = None,
        on_line: LineSink | None = None,
        channel: Any = None,
    ) -> Result:
        """Run a command on the host to its end; see Runs. Pass secrets by `input`.

        `channel` is a `session` of the caller, which the caller may `end`. Raises HostError, DeadlinePassed,
        CommandFailed when the command prints too much, and the exceptions of `on_line`.
        """
        channel, late = channel or self.session(), threading.Event()

        def give_up() -> None:
            if channel.exit_status_ready():  # do not wait for processes that hold its outputs open
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
            result = execution.run_streams(channel, command, mark, on_line, late)
        except BaseException:
            self.end(channel)
            raise
        finally:
            timer.cancel()
            channel.close()
        if late.is_set() and deadline:
            raise DeadlinePassed(f"{self.host}: `{shell_line(command)}` did not finish within {deadline.seconds:g} s")
        if result is None:
            raise HostError(f"{self.host}: the connection was lost")
        return result

    @_mapped
    def _begin(self, channel: Any, command: Command) -> bytes:
        mark = execution.new_mark()
        channel.exec_command(execution.login_shell_line(command, mark))
        return mark

    def end(self, channel: Any, seconds: float = LATE_SECONDS) -> None:
        """End the command on a channel (SIGTERM, then SIGKILL after `seconds`) and close it, so that `run` returns."""
        execution.end(self._connection.transport, channel, seconds)

    @_mapped
    def socket(self, path: str) -> Any:
        """Return a channel to a Unix socket of the host (OpenSSH's PROTOCOL, section 2.4)."""
        transport = self._connection.transport
        with transport.socket_lock:
            transport.socket_path = path
            return transport.open_channel(STREAM_LOCAL, timeout=CONNECT_SECONDS)

    @_mapped
    def port(self, number: int) -> Any:
        """Return a channel to a port of the host's loopback."""
        return self._connection.transport.open_channel(
            "direct-tcpip", ("127.0.0.1", number), ("127.0.0.1", 0), timeout=CONNECT_SECONDS
        )

    @_mapped
    def program(self, command: Command, ready: bytes, seconds: float) -> tuple[Any, str]:
        """Start a program on the host. Return a channel that carries its standard input and output.

        Returns when the program has printed `ready`. If it has not within `seconds`, returns None and its error output.
        """
        channel, printed, errors = self.session(), bytearray(), bytearray()
        mark = self._begin(channel, command)
        out, err = execution.OutputStart(mark, printed.extend), execution.OutputStart(mark, errors.extend)

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


def _watch_connection(line: Any, transport: Any) -> None:
    """Close the connection when the host does not answer, even if a jump host in between still does."""
    if isinstance(line, socket.socket):  # otherwise it is a ProxyCommand's
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)  # tcp(7)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=_send_keepalives, args=(transport,), daemon=True).start()
    threading.Thread(target=_watch_silence, args=(line, transport), daemon=True).start()


def _send_keepalives(transport: Any) -> None:
    """Send keepalives as ssh_config(5), ServerAliveInterval: a host that does not know the request answers too."""
    with contextlib.suppress(OSError, EOFError):
        while transport.is_active():
            transport.global_request("keepalive@openssh.com", wait=True)
            time.sleep(_KEEPALIVE_SECONDS)


def _watch_silence(line: Any, transport: Any) -> None:
    while transport.is_active():
        # The host cannot answer data that has not left this machine yet. TCP times out for that.
        if time.monotonic() - transport.last_heard > SILENCE_SECONDS and not _has_unsent_data(line):
            transport.close()
        time.sleep(1)


def _has_unsent_data(line: Any) -> bool:
    """Return whether a socket has unsent or unacknowledged data (tcp(7), SIOCOUTQ)."""
    if not isinstance(line, socket.socket):
        return False
    return any(fcntl.ioctl(line.fileno(), termios.TIOCOUTQ, bytes(4)))
