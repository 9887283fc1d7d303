"""An SSH server for tests, on the loopback and in the test's own process: commands, ports and sockets are real."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from mailstack.secret import write_private
from mailstack.ssh.address import Host
from mailstack.ssh.transport import STREAM_LOCAL

# Deadline for a thread's end; in seconds.
SECONDS = 5.0
_PIECE = 1 << 16
_OPEN_FAILED = int(paramiko.OPEN_FAILED_CONNECT_FAILED)


def key(path: Path, passphrase: str = "") -> Path:
    """Create a file with a new private key, encrypted when there is a passphrase."""
    how: KeySerializationEncryption = NoEncryption()
    if passphrase:
        how = PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(passphrase.encode())
    made = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, how)
    write_private(path, made.decode())
    return path


def copy(read: Callable[[int], bytes], write: Callable[[bytes], Any], end: Callable[[], Any]) -> None:
    """Copy data until either side ends."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        while data := read(_PIECE):
            write(data)
    with contextlib.suppress(OSError, ValueError, EOFError):
        end()


class Server:
    """The server. Its attributes may be changed between connections."""

    def __init__(self, directory: Path) -> None:
        self.key = paramiko.Ed25519Key.from_private_key_file(str(key(directory / "host")))
        self.keys: set[str] = set()  # public keys that may log in, in base64
        self.password = ""
        self.cuts = False  # the connection, at the first attempt to log in
        self.line = "{}"  # the command of the user's login shell; {} is what the client asks for
        self.replaced: dict[str, str] = {}  # texts in commands, each by another
        self.environment = {"PATH": os.environ["PATH"]}
        self.transports: list[Any] = []
        self.runs: list[Run] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.start(self._accept)

    @property
    def host(self) -> Host:
        """The server's address."""
        return Host("127.0.0.1", "tester", self.port)

    @property
    def known(self) -> str:
        """The server's line for known_hosts."""
        return f"[127.0.0.1]:{self.port} {self.key.get_name()} {self.key.get_base64()}\n"

    def start(self, work: Callable[..., None], *args: Any) -> threading.Thread:
        """Start a thread that ends with the server."""
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                line = self._listener.accept()[0]
            except OSError:
                return
            transport = _Transport(line)
            transport.add_server_key(self.key)
            self.transports.append(transport)
            transport.start_server(event=threading.Event(), server=_Session(self, transport))

    def join(self, channel: Any, line: socket.socket) -> None:
        """Copy between a channel and a socket in both directions."""
        self._sockets.append(line)
        self.start(copy, channel.recv, line.sendall, lambda: line.shutdown(socket.SHUT_WR))
        self.start(copy, line.recv, channel.sendall, channel.shutdown_write)

    def drop(self) -> None:
        """Cut all connections, and kill all commands."""
        for transport in self.transports:
            transport.close()
        for run in self.runs:
            run.signal("KILL")

    def close(self) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(SECONDS)
        self._listener.close()
        self.drop()
        for line in self._sockets:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive(), thread
        for line in self._sockets:
            line.close()


class Run:
    """A command on a channel."""

    def __init__(self, server: Server, channel: Any, line: str) -> None:
        self._channel = channel
        self.process = subprocess.Popen(
            ("/bin/sh", "-c", line),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=server.environment,
            start_new_session=True,
        )
        stdin, stdout, stderr = self.process.stdin, self.process.stdout, self.process.stderr
        assert stdin and stdout and stderr

        def write(data: bytes) -> None:
            stdin.write(data)
            stdin.flush()

        server.start(copy, channel.recv, write, stdin.close)
        self._outputs = [
            server.start(copy, stdout.read1, channel.sendall, stdout.close),  # type: ignore[attr-defined]
            server.start(copy, stderr.read1, channel.sendall_stderr, stderr.close),  # type: ignore[attr-defined]
        ]
        server.start(self._wait)

    def _wait(self) -> None:
        code = self.process.wait()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if code >= 0:
                self._channel.send_exit_status(code)
            else:
                self._channel.transport.tell_signal(self._channel, signal.Signals(-code).name.removeprefix("SIG"))
        for output in self._outputs:
            output.join()
        with contextlib.suppress(OSError, EOFError):
            self._channel.close()

    def signal(self, name: str) -> None:
        """Send a signal to the command's processes, unless all have ended."""
        if self.process.poll() is None or any(output.is_alive() for output in self._outputs):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.Signals[f"SIG{name}"])


class _Session(paramiko.ServerInterface):  # type: ignore[misc]
    """What the server answers on one connection."""

    def __init__(self, server: Server, transport: Any) -> None:
        self.server = server
        self._transport = transport
        self._lines: dict[int, str] = {}
        self._runs: dict[int, Run] = {}
        self.leads: dict[int, socket.socket] = {}
        self.channels: list[Any] = []  # the library closes one that nothing refers to

    def get_allowed_auths(self, username: str) -> str:
        return "publickey,password" if self.server.password else "publickey"

    def _passed(self, right: bool) -> int:
        if self.server.cuts:
            self._transport.sock.shutdown(socket.SHUT_RDWR)
        return int(paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED)

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return self._passed(key.get_base64() in self.server.keys)

    def check_auth_password(self, username: str, password: str) -> int:
        return self._passed(password == self.server.password != "")

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if kind == STREAM_LOCAL:
            return self.lead(chanid, socket.AF_UNIX, self._transport.path)
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_direct_tcpip_request(self, chanid: int, origin: Any, destination: tuple[str, int]) -> int:
        return self.lead(chanid, socket.AF_INET, destination)

    def lead(self, chanid: int, family: int, place: Any) -> int:
        """Connect a channel to an address."""
        line = socket.socket(family)
        try:
            line.connect(place)
        except OSError:
            line.close()
            return _OPEN_FAILED
        self.leads[chanid] = line
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        line = command.decode()
        for old, new in self.server.replaced.items():
            line = line.replace(old, new)
        self._lines[channel.get_id()] = self.server.line.replace("{}", line)
        return True

    def begin(self, channel: Any) -> None:
        """Run the command that was asked for, once that was answered."""
        run = Run(self.server, channel, self._lines[channel.get_id()])
        self._runs[channel.get_id()] = run
        self.server.runs.append(run)

    def signal(self, channel: Any, name: str) -> None:
        """Send a signal to the command on a channel."""
        if run := self._runs.get(channel.get_id()):
            run.signal(name)


def _request(channel: Any, message: Any) -> None:
    """Handle a request on a channel, of which the library does not know signals."""
    kind, session = message.get_text(), channel.transport.server_object
    if kind == "signal":
        message.get_boolean()
        session.signal(channel, message.get_text())
        return
    message.rewind()
    message.get_int()
    channel._handle_request(message)
    if kind == "exec":
        session.begin(channel)


class _Transport(paramiko.Transport):  # type: ignore[misc]
    """The server's side of a connection, with what OpenSSH's has besides."""

    _channel_handler_table: ClassVar[dict[int, Any]] = {
        **paramiko.Transport._channel_handler_table,
        paramiko.common.MSG_CHANNEL_REQUEST: _request,
    }

    def _parse_channel_open(self, message: Any) -> None:
        self.path = ""
        if message.get_text() == STREAM_LOCAL:
            for _ in range(3):
                message.get_int()
            self.path = message.get_text()
        message.rewind()
        super()._parse_channel_open(message)

    def _queue_incoming_channel(self, channel: Any) -> None:
        self.server_object.channels.append(channel)
        if line := self.server_object.leads.pop(channel.get_id(), None):
            self.server_object.server.join(channel, line)

    def tell_signal(self, channel: Any, name: str) -> None:
        """Tell that a signal ended a command (RFC 4254, section 6.10)."""
        told = paramiko.Message()
        told.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
        told.add_int(channel.remote_chanid)
        told.add_string("exit-signal")
        told.add_boolean(False)
        told.add_string(name)
        told.add_boolean(False)
        told.add_string("")
        told.add_string("")
        self._send_user_message(told)
