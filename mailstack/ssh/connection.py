"""A command's side of the connection to a host over SSH: it sends requests to the daemon that keeps it (`daemon`)."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from mailstack.errors import DeadlinePassed, HostError
from mailstack.model import Command, Deadline, Json, Result
from mailstack.runner.output import LineSink
from mailstack.ssh import address, wire
from mailstack.ssh.address import CONTROL
from mailstack.text import hint

# Timeout of the host's answer to a request that has no deadline of its own; in seconds.
SECONDS = 60.0
# How long the daemon may take, beyond a command's deadline, to end the command; in seconds.
ENDING_SECONDS = 5.0
# The types of the daemon's description of the host; see `tunnel.Tunnel`.
_ABOUT = {"place": str, "socket": str, "way": str, "user": str, "uid": int, "clock": int, "ports": list}


class Connection:
    """An open connection to a host over SSH. It runs commands there, as `runner.Local` does here."""

    def __init__(self, host: address.Host, directory: Path, control: socket.socket) -> None:
        self.host = host
        self._directory = directory
        self._control = control  # open as long as this object: it marks the connection as in use
        self.about: Json = {}
        self.ahead = 0.0  # seconds by which the host's clock is ahead, at a resolution of one second
        self.look()

    @property
    def place(self) -> str:
        """The host's directory for the labs' files: on tmpfs, and private to the user."""
        return str(self.about["place"])

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Run `command` on the host; see Runs. Ctrl-C or SIGTERM ends it.

        Raises HostError when the connection is cut meanwhile, DeadlinePassed when the command took too long and was
        ended, and the exceptions of `on_line`.
        """
        data = command.input or b""
        request = {
            "do": "run",
            "argv": list(command.argv),
            "environment": dict(command.environment),
            "input": len(data),
            "lines": on_line is not None,
            "of": deadline and float(deadline.seconds),
            "seconds": deadline and float(min(deadline.remaining(), threading.TIMEOUT_MAX)),
        }
        reply = self._request(request, {"code": int, "stdout": str, "stderr": str}, data, on_line, deadline)
        return Result(reply["code"], reply["stdout"], reply["stderr"])

    def look(self) -> Json:
        """Query the host's current state: see `tunnel.Tunnel`. Raises HostError when the host is unreachable."""
        before = time.time()
        self.about = self._request({"do": "about"}, _ABOUT)
        self.ahead = self.about["clock"] - (before + time.time()) / 2
        return self.about

    def forward(self, ports: Collection[int]) -> list[int]:
        """Forward ports of this machine to the host. Return those that are in use here. Raises HostError."""
        return list(self._request({"do": "forward", "ports": list(ports)}, {"taken": list})["taken"])

    def close(self, ports: Collection[int]) -> None:
        """Stop forwarding these ports."""
        self._request({"do": "close", "ports": list(ports)}, {})

    def lost(self) -> HostError:
        """Return the error for a host that is unreachable."""
        return HostError(
            f"{self.host}: the connection was lost",
            remedy=f"when it is reachable: {hint.line('down', '--stale', host=str(self.host))} removes leftovers there",
        )

    def _request(
        self,
        request: Json,
        shape: Mapping[str, type],
        data: bytes = b"",
        on_line: LineSink | None = None,
        deadline: Deadline | None = None,
    ) -> Json:
        """Send a request to the daemon and return its answer, which must have the keys and types of `shape`.

        Each request has a connection of its own. The daemon ends the requested command when that connection is closed.
        """
        with contextlib.ExitStack() as stack:
            with self._mapped(deadline):
                if (sock := connect(self._directory)) is None:
                    raise self.lost()
                stack.enter_context(sock)
                if deadline or request["do"] != "run":
                    left = deadline.remaining() if deadline else SECONDS
                    sock.settimeout(min(left + ENDING_SECONDS, threading.TIMEOUT_MAX))
                stream = stack.enter_context(sock.makefile("rwb"))
                stream.write(json.dumps(request).encode() + b"\n" + data)
                stream.flush()
            while True:
                with self._mapped(deadline):
                    reply = wire.receive(stream)
                    if reply is None:
                        raise self.lost()
                    if "error" in reply:
                        raise wire.error_of(reply)
                    if "line" not in reply:
                        for name, kind in shape.items():
                            wire.value(reply, name, kind)
                        return reply
                    line = wire.value(reply, "line", str)
                if on_line:
                    on_line(line)

    @contextlib.contextmanager
    def _mapped(self, deadline: Deadline | None) -> Iterator[None]:
        """Map the errors of the connection to the daemon to errors of the host."""
        try:
            yield
        except TimeoutError:
            if deadline:
                raise DeadlinePassed(f"{self.host}: no answer within {deadline.seconds:g} s") from None
            raise HostError(f"{self.host}: the daemon that keeps the connection does not answer") from None
        except wire.ProtocolError as error:
            raise unreadable_reply(self.host, error) from None
        except OSError:
            raise self.lost() from None


def unreadable_reply(host: address.Host, error: wire.ProtocolError) -> HostError:
    """Return the error for an answer that cannot be parsed."""
    return HostError(
        f"{host}: the daemon that keeps the connection sent an unreadable answer: {error}",
        remedy="it may be of another version; it exits with the last command and the last lab on that host",
    )


def connect(directory: Path) -> socket.socket | None:
    """Connect to the daemon. Return None when none listens."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        control.connect(str(directory / CONTROL))
    except OSError:
        control.close()
        return None
    return control
