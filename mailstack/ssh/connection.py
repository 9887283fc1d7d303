"""The connection to a host over SSH, as a command uses it: by asking the process that keeps it open (`daemon`)."""

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

# How long the host may take for an answer, where the question has no deadline of its own; in seconds.
SECONDS = 60.0
# How long the process that keeps the connection may take, beyond a command's deadline, to end it; in seconds.
ENDING_SECONDS = 5.0
# What it tells of the host; see `tunnel.Tunnel`.
_ABOUT = {"place": str, "socket": str, "way": str, "user": str, "uid": int, "clock": int, "ports": list}


class Connection:
    """An open connection to a host over SSH; runs commands there, as `runner.Local` does here."""

    def __init__(self, host: address.Host, directory: Path, control: socket.socket) -> None:
        self.host = host
        self._directory = directory
        self._control = control  # open as long as this is: the connection is in use
        self.about: Json = {}
        self.ahead = 0.0  # seconds by which its clock is ahead, at a resolution of one second
        self.look()

    @property
    def place(self) -> str:
        """The host's directory for what labs are handed: on tmpfs, and its user's alone."""
        return str(self.about["place"])

    def run(self, command: Command, *, deadline: Deadline | None = None, on_line: LineSink | None = None) -> Result:
        """Run `command` on the host; see Runs. On Ctrl-C or SIGTERM it is ended.

        Raises HostError when the connection is cut meanwhile, DeadlinePassed when it was ended for taking too long,
        and what `on_line` raises.
        """
        data = command.input or b""
        asked = {
            "do": "run",
            "argv": list(command.argv),
            "environment": dict(command.environment),
            "input": len(data),
            "lines": on_line is not None,
            "of": deadline and float(deadline.seconds),
            "seconds": deadline and float(min(deadline.remaining(), threading.TIMEOUT_MAX)),
        }
        told = self._ask(asked, {"code": int, "stdout": str, "stderr": str}, data, on_line, deadline)
        return Result(told["code"], told["stdout"], told["stderr"])

    def look(self) -> Json:
        """Look at the host now: see `tunnel.Tunnel`. Raises HostError when it has gone."""
        before = time.time()
        self.about = self._ask({"do": "about"}, _ABOUT)
        self.ahead = self.about["clock"] - (before + time.time()) / 2
        return self.about

    def forward(self, ports: Collection[int]) -> list[int]:
        """Forward ports of this machine to the host's; returns those that were taken here. Raises HostError."""
        return list(self._ask({"do": "forward", "ports": list(ports)}, {"taken": list})["taken"])

    def close(self, ports: Collection[int]) -> None:
        """Have these ports lead nowhere."""
        self._ask({"do": "close", "ports": list(ports)}, {})

    def cut(self) -> HostError:
        """What to say when the host has gone."""
        return HostError(
            f"{self.host}: the connection was cut",
            remedy=f"when it is back: {hint.line('down', '--stale', host=str(self.host))} removes what was left there",
        )

    def _ask(
        self,
        asked: Json,
        shape: Mapping[str, type],
        data: bytes = b"",
        on_line: LineSink | None = None,
        deadline: Deadline | None = None,
    ) -> Json:
        """Ask the process that keeps the connection; what its answer has to have is `shape`.

        Each over a connection of its own: where nobody waits for the answer any more, it ends what was asked for.
        """
        with contextlib.ExitStack() as stack:
            with self._mapped(deadline):
                if (sock := attempt(self._directory)) is None:
                    raise self.cut()
                stack.enter_context(sock)
                if deadline or asked["do"] != "run":
                    left = deadline.remaining() if deadline else SECONDS
                    sock.settimeout(min(left + ENDING_SECONDS, threading.TIMEOUT_MAX))
                stream = stack.enter_context(sock.makefile("rwb"))
                stream.write(json.dumps(asked).encode() + b"\n" + data)
                stream.flush()
            while True:
                with self._mapped(deadline):
                    told = wire.heard(stream)
                    if told is None:
                        raise self.cut()
                    if "error" in told:
                        raise wire.error_of(told)
                    if "line" not in told:
                        for name, kind in shape.items():
                            wire.value(told, name, kind)
                        return told
                    line = wire.value(told, "line", str)
                if on_line:
                    on_line(line)

    @contextlib.contextmanager
    def _mapped(self, deadline: Deadline | None) -> Iterator[None]:
        """Turn what goes wrong with that process into errors of the host."""
        try:
            yield
        except TimeoutError:
            if deadline:
                raise DeadlinePassed(f"{self.host}: no answer within {deadline.seconds:g} s") from None
            raise HostError(f"{self.host}: the process that keeps the connection does not answer") from None
        except wire.Broken as error:
            raise unread(self.host, error) from None
        except OSError:
            raise self.cut() from None


def unread(host: address.Host, error: wire.Broken) -> HostError:
    """Return what to say of an answer that is none."""
    return HostError(
        f"{host}: the process that keeps the connection gave an answer that cannot be read: {error}",
        remedy="is it another version's? It ends with the last command and the last lab on that host",
    )


def attempt(directory: Path) -> socket.socket | None:
    """Connect to the process that keeps the connection; None where none listens."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        control.connect(str(directory / CONTROL))
    except OSError:
        control.close()
        return None
    return control
