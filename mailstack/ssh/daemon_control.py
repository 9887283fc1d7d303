"""The questions that commands put to the process that keeps a connection, and its answers; see `wire`."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from typing import Any

from mailstack.model import Command, Deadline, Json
from mailstack.ssh import wire
from mailstack.ssh.tunnel import Tunnel


class Control:
    """What a command asks for, and gets, over a connection for each question; one is kept open as long as it lives."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def __call__(self, client: socket.socket) -> None:
        self._tunnel.joined()
        try:
            with client.makefile("rwb") as stream, contextlib.suppress(OSError):  # it has gone
                try:
                    if (asked := wire.heard(stream)) is not None:
                        wire.say(stream, self._answer(client, stream, asked))
                except _Gone:
                    pass
                except Exception as error:  # whatever it is, the command that has asked is told
                    wire.say(stream, wire.told(error))
        finally:
            self._tunnel.left()

    def _answer(self, client: socket.socket, stream: io.BufferedRWPair, asked: Json) -> Json:
        match wire.value(asked, "do", str):
            case "about":
                self._tunnel.look()
                return self._tunnel.about
            case "run":
                return self._run(client, stream, asked)
            case "forward":
                return {"taken": self._tunnel.forward(wire.items(asked, "ports", int))}
            case "close":
                self._tunnel.close(wire.items(asked, "ports", int))
                return {}
            case other:
                raise wire.Broken(f"{other!r:.40} cannot be asked for")

    def _run(self, client: socket.socket, stream: io.BufferedRWPair, asked: Json) -> Json:
        size, deadline = wire.value(asked, "input", int), None
        data = stream.read(size)
        if len(data) < size:
            raise _Gone  # whoever asked was killed: half an input is none
        if asked.get("of") is not None:
            seconds = wire.value(asked, "seconds", float)
            deadline = Deadline(wire.value(asked, "of", float), time.monotonic() + seconds)
        environment = wire.value(asked, "environment", dict)
        command = Command(tuple(wire.items(asked, "argv", str)), environment, data or None)
        channel = self._tunnel.remote.session()
        threading.Thread(target=self._watch, args=(client, channel), daemon=True).start()

        def tell(line: str) -> None:
            try:
                wire.say(stream, {"line": line})
            except OSError:
                raise _Gone from None

        on_line = tell if wire.value(asked, "lines", bool) else None
        result = self._tunnel.remote.run(command, deadline=deadline, on_line=on_line, channel=channel)
        return {"code": result.code, "stdout": result.stdout, "stderr": result.stderr}

    def _watch(self, client: socket.socket, channel: Any) -> None:
        """End what runs on the channel when whoever asked for it goes: nothing more is said until then."""
        with contextlib.suppress(OSError):
            client.recv(1)
        self._tunnel.remote.end(channel)


class _Gone(Exception):
    """Whoever asked has gone: there is nobody to answer."""
