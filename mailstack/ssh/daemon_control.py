"""The daemon's side of the requests that commands send to it; see `wire`."""

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
    """Answers the requests of commands, one for each connection. A command keeps one more open as long as it lives."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def __call__(self, client: socket.socket) -> None:
        self._tunnel.client_joined()
        try:
            with client.makefile("rwb") as stream, contextlib.suppress(OSError):  # the client has disconnected
                try:
                    if (request := wire.receive(stream)) is not None:
                        wire.send(stream, self._answer(client, stream, request))
                except _ClientGone:
                    pass
                except Exception as error:  # report every error to the client
                    wire.send(stream, wire.error_document(error))
        finally:
            self._tunnel.client_left()

    def _answer(self, client: socket.socket, stream: io.BufferedRWPair, request: Json) -> Json:
        match wire.value(request, "do", str):
            case "about":
                self._tunnel.look()
                return self._tunnel.about
            case "run":
                return self._run(client, stream, request)
            case "forward":
                return {"taken": self._tunnel.forward(wire.items(request, "ports", int))}
            case "close":
                self._tunnel.close(wire.items(request, "ports", int))
                return {}
            case other:
                raise wire.ProtocolError(f"{other!r:.40} is not a known request")

    def _run(self, client: socket.socket, stream: io.BufferedRWPair, request: Json) -> Json:
        size, deadline = wire.value(request, "input", int), None
        data = stream.read(size)
        if len(data) < size:
            raise _ClientGone  # the client was killed: do not use incomplete input
        if request.get("of") is not None:
            seconds = wire.value(request, "seconds", float)
            deadline = Deadline(wire.value(request, "of", float), time.monotonic() + seconds)
        environment = wire.value(request, "environment", dict)
        command = Command(tuple(wire.items(request, "argv", str)), environment, data or None)
        channel = self._tunnel.remote.session()
        threading.Thread(target=self._watch, args=(client, channel), daemon=True).start()

        def send_line(line: str) -> None:
            try:
                wire.send(stream, {"line": line})
            except OSError:
                raise _ClientGone from None

        on_line = send_line if wire.value(request, "lines", bool) else None
        result = self._tunnel.remote.run(command, deadline=deadline, on_line=on_line, channel=channel)
        return {"code": result.code, "stdout": result.stdout, "stderr": result.stderr}

    def _watch(self, client: socket.socket, channel: Any) -> None:
        """End the command on the channel when the client disconnects; the client sends nothing more until then."""
        with contextlib.suppress(OSError):
            client.recv(1)
        self._tunnel.remote.end(channel)


class _ClientGone(Exception):
    """The client has disconnected, so there is no address to reply to."""
