"""A host over SSH: the only module that uses Fabric, and what is below it.

Fabric reads ~/.ssh/config (names, users, ports, keys, ProxyJump) and opens the connection; keys of hosts are verified
against known_hosts (sshd(8)), and a host that is not in there is refused, where Fabric would add it.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mailstack.errors import DeadlinePassed, HostError
from mailstack.hosts import Host
from mailstack.model import Command, Deadline, Result
from mailstack.runner import shown
from mailstack.secret import Secret

P = ParamSpec("P")
T = TypeVar("T")

# Until the host has answered at all, and until it is logged in to; in seconds.
CONNECT_SECONDS = 10
# After this time without an answer the connection counts as cut; in seconds.
SILENCE_SECONDS = 10
_KEEPALIVE_SECONDS = 3

_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_STREAM_LOCAL = "direct-streamlocal@openssh.com"


class Refused(HostError):
    """The host takes none of the keys that were offered; `password` says whether it would take a password."""

    def __init__(self, message: str, *, remedy: str, password: bool) -> None:
        super().__init__(message, remedy=remedy)
        self.password = password


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

    def __init__(self, host: Host, password: Secret | None = None) -> None:
        self.host = host
        self._password = password
        self._connection: Any = None

    # ── the connection ─────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Connect and log in. Raises HostError; Refused when none of the user's keys will do."""
        import fabric
        import paramiko

        asked: dict[str, Any] = {
            "banner_timeout": CONNECT_SECONDS,
            "auth_timeout": CONNECT_SECONDS,
            "transport_factory": _transport(),
        }
        if self._password:
            asked["password"] = self._password.reveal()
        try:
            self._connection = fabric.Connection(
                self.host.machine,
                user=self.host.user,
                port=self.host.port,
                connect_timeout=CONNECT_SECONDS,
                connect_kwargs=asked,
            )
            for hop in _hops(self._connection):
                _verify(hop, self.host)
            self._connection.open()
        except paramiko.BadHostKeyException as error:
            known, shown = fingerprint(error.expected_key), fingerprint(error.key)
            raise HostError(
                f"{self.host}: its key has changed: known is {known}, shown was {shown}",
                remedy="somebody may be in between. Where you know that the key is new: "
                f"ssh-keygen -R {_known_name(error.hostname, self._connection.port)}, then connect once with ssh",
            ) from None
        except paramiko.PasswordRequiredException:
            raise Refused(
                f"{self.host}: the key for it is encrypted",
                remedy="add it to your agent: ssh-add",
                password=False,
            ) from None
        except paramiko.AuthenticationException as error:
            kinds = getattr(error, "allowed_types", [])
            raise self._refused(password="password" in kinds or not kinds) from None
        except paramiko.ssh_exception.NoValidConnectionsError as error:
            reason = next(iter(error.errors.values())).strerror
            raise HostError(
                f"{self.host}: nothing can be reached at {self._connection.host}:{self._connection.port}: {reason}",
                remedy="is the machine up, and does sshd listen there?",
            ) from None
        except paramiko.SSHException as error:
            if "No authentication methods available" in str(error):  # neither a key nor a password to offer
                raise self._refused(password=True) from None
            raise HostError(f"{self.host}: no SSH with it: {error}") from None
        except socket.gaierror as error:
            raise HostError(
                f"{self.host}: there is no machine of that name: {error.strerror}",
                remedy="write ssh://user@machine, or a Host of ~/.ssh/config",
            ) from None
        except (OSError, EOFError) as error:  # TimeoutError is one
            reason = getattr(error, "strerror", None) or str(error) or "it does not answer"
            raise HostError(f"{self.host}: {reason}", remedy="is the machine up, and does sshd listen there?") from None
        self._watch_the_line()

    def _refused(self, *, password: bool) -> Refused:
        how = " with this password" if self._password else ": none of your keys will do"
        return Refused(
            f"{self.host}: {self._connection.user} is refused{how}",
            remedy=f"see whether `ssh {self.host}` works: the keys in your agent and in ~/.ssh/config are taken",
            password=password,
        )

    def _watch_the_line(self) -> None:
        """Have the kernel give the connection up when the host answers no more (tcp(7), TCP_USER_TIMEOUT)."""
        transport = self._connection.transport
        transport.set_keepalive(_KEEPALIVE_SECONDS)
        if isinstance(transport.sock, socket.socket):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wait(self) -> None:
        """Until the connection has ended, however it does."""
        self._connection.transport.join()

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()

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
            return transport.open_channel(_STREAM_LOCAL, timeout=CONNECT_SECONDS)

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


def _transport() -> Any:
    """A kind of connection that can lead to a Unix socket: the library knows the shape of fewer kinds of channel."""
    import threading

    import paramiko

    class Transport(paramiko.Transport):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.socket_path = ""
            self.socket_lock = threading.Lock()

        def _send_user_message(self, data: Any) -> None:
            if _STREAM_LOCAL.encode() in data.asbytes()[:64]:  # what comes after the part that all kinds share
                data.add_string(self.socket_path)
                data.add_string("")
                data.add_int(0)
            super()._send_user_message(data)

        def terminate(self, channel: Any) -> None:
            """Send SIGTERM to what runs on a channel (RFC 4254, section 6.9)."""
            asked = paramiko.Message()
            asked.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
            asked.add_int(channel.remote_chanid)
            asked.add_string("signal")
            asked.add_boolean(False)  # no answer is wanted
            asked.add_string("TERM")
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):  # gone with its connection
                self._send_user_message(asked)

    return Transport


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


def line_of(command: Command) -> str:
    """The command as one line for the host's shell: that is all that SSH carries (RFC 4254, section 6.5)."""
    settings = [f"{name}={value}" for name, value in command.environment.items()]
    return shlex.join((*(("env", *settings) if settings else ()), *command.argv))


def fingerprint(key: Any) -> str:
    """A host key's fingerprint as ssh(1) shows it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"SHA256:{digest} ({key.get_name()})"


def _hops(connection: Any) -> list[Any]:
    """The connection, and those that it leads through."""
    hops = []
    while connection is not None and not isinstance(connection, str):
        hops.append(connection)
        connection = connection.gateway
    return hops


def _verify(connection: Any, host: Host) -> None:
    """Have a connection verify its host's key."""
    import paramiko

    class Unknown(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        """Refuse a key that is in no known_hosts."""

        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            where = "" if str(host.machine) in hostname else f" (on the way, {hostname})"
            raise HostError(
                f"{host}{where}: its key is not known: {fingerprint(key)}",
                remedy="compare it with what the machine's owner says, and connect once with "
                f"`ssh {host}`: that adds it to ~/.ssh/known_hosts",
            )

    connection.client.set_missing_host_key_policy(Unknown())
    said = str(connection.ssh_config.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"))
    for name in (*_KNOWN_HOSTS, *said.split()):
        path = Path(name).expanduser()
        if path.is_file():
            connection.client.load_system_host_keys(str(path))


def _known_name(hostname: str, port: int) -> str:
    return hostname if port == 22 or hostname.startswith("[") else f"'[{hostname}]:{port}'"
