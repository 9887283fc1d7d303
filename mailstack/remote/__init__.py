"""A host over SSH: the only room that uses Fabric, and what is below it.

`login` opens the connection, this module runs commands over it, and leads to sockets and ports.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import shlex
import socket
import termios
import time
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from mailstack.errors import DeadlinePassed, HostError
from mailstack.hosts import Host
from mailstack.model import Command, Deadline, Result
from mailstack.remote import login
from mailstack.remote.transport import STREAM_LOCAL
from mailstack.runner import shown
from mailstack.secret import Secret

P = ParamSpec("P")
T = TypeVar("T")

# Until the host has answered; in seconds.
CONNECT_SECONDS = 10
# After this time without an answer the connection counts as cut; in seconds.
SILENCE_SECONDS = 10
_KEEPALIVE_SECONDS = 3


def _mapped(function: Callable[P, T]) -> Callable[P, T]:
    """Turn what SSH's library raises into a HostError that names the host."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        import paramiko

        self = args[0]
        assert isinstance(self, Remote)
        try:
            return function(*args, **kwargs)
        except paramiko.SSHException as error:
            raise HostError(f"{self.host}: {error or 'the connection was cut'}") from None
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "the connection was cut"
            raise HostError(f"{self.host}: {reason}") from None

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

    @_mapped
    def run(
        self,
        command: Command,
        *,
        deadline: Deadline | None = None,
        on_line: Callable[[str], None] | None = None,
        channel: Any = None,
    ) -> Result:
        """Run a command on the host to its end; see Runs. What nobody may see goes in by `input`.

        `channel`: a `session` of the caller's, who may `end` it. Raises HostError, DeadlinePassed.
        """
        import threading

        import paramiko

        channel, late = channel or self.session(), threading.Event()

        def give_up() -> None:
            late.set()
            self.end(channel)

        timer = threading.Timer(min(deadline.remaining(), threading.TIMEOUT_MAX) if deadline else 0, give_up)
        if deadline:
            timer.start()
        try:
            with channel:
                return _ran(channel, command, on_line)
        except (paramiko.SSHException, OSError, EOFError):
            if deadline and late.is_set():
                raise DeadlinePassed(
                    f"{self.host}: `{shown(command)}` was not done within {deadline.seconds:g} s"
                ) from None
            raise
        finally:
            timer.cancel()

    def end(self, channel: Any) -> None:
        """End what runs on a channel, and close it: `run` is over at once."""
        if not channel.closed:  # else its number may be another's by now
            self._connection.transport.terminate(channel)
            channel.close()

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
    def program(self, command: Command) -> Any:
        """A program on the host whose standard input and output are a channel."""
        channel = self._connection.transport.open_session(timeout=CONNECT_SECONDS)
        channel.exec_command(line_of(command))
        return channel


def _ran(channel: Any, command: Command, on_line: Callable[[str], None] | None) -> Result:
    """A command run to its end on a channel. Raises EOFError when the channel ends before it."""
    import threading

    channel.exec_command(line_of(command))
    errors: list[str] = []

    def read_errors() -> None:
        for raw in channel.makefile_stderr("rb"):
            line = raw.decode(errors="replace").rstrip("\n")
            errors.append(line)
            if on_line:
                on_line(line)

    reader = threading.Thread(target=read_errors, daemon=True)
    reader.start()
    with contextlib.suppress(OSError):  # it ended without reading: its exit code tells
        if command.input:
            channel.sendall(command.input)
        channel.shutdown_write()
    output = channel.makefile("rb").read()
    reader.join()
    code = channel.recv_exit_status()
    if code < 0:
        raise EOFError
    return Result(code, output.decode(errors="replace"), "\n".join(errors))


def _unsent(line: Any) -> bool:
    """Whether something stands in a socket's way out (tcp(7), SIOCOUTQ)."""
    if not isinstance(line, socket.socket):
        return False
    return any(fcntl.ioctl(line.fileno(), termios.TIOCOUTQ, bytes(4)))


def line_of(command: Command) -> str:
    """The command as one line for the host's shell: that is all that SSH carries (RFC 4254, section 6.5)."""
    settings = [f"{name}={value}" for name, value in command.environment.items()]
    return shlex.join((*(("env", *settings) if settings else ()), *command.argv))
