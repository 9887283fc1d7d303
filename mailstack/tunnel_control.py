"""The questions that commands put to the process that keeps a connection, and its answers; see `control`."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from typing import Any

from mailstack import control
from mailstack.model import Command, Deadline, Json
from mailstack.tunnel import Tunnel


class Control:
    """What a command asks for, and gets, over a connection for each question; one is kept open as long as it lives."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def __call__(self, client: socket.socket) -> None:
        self._tunnel.joined()
        try:
            with client.makefile("rwb") as stream, contextlib.suppress(OSError):  # it has gone
                try:
                    if (asked := control.heard(stream)) is not None:
                        control.say(stream, self._answer(client, stream, asked))
                except _Gone:
                    pass
                except Exception as error:  # whatever it is, the command that has asked is told
                    control.say(stream, control.told(error))
        finally:
            self._tunnel.left()

    def _answer(self, client: socket.socket, stream: io.BufferedRWPair, asked: Json) -> Json:
        match control.value(asked, "do", str):
            case "about":
                self._tunnel.look()
                return self._tunnel.about
            case "run":
                return self._run(client, stream, asked)
            case "forward":
                return {"taken": self._tunnel.forward(control.items(asked, "ports", int))}
            case "close":
                self._tunnel.close(control.items(asked, "ports", int))
                return {}
            case other:
                raise control.Broken(f"{other!r:.40} cannot be asked for")

    def _run(self, client: socket.socket, stream: io.BufferedRWPair, asked: Json) -> Json:
        size, deadline = control.value(asked, "input", int), None
        data = stream.read(size)
        if len(data) < size:
            raise _Gone  # whoever asked was killed: half an input is none
        if asked.get("of") is not None:
            seconds = control.value(asked, "seconds", float)
            deadline = Deadline(control.value(asked, "of", float), time.monotonic() + seconds)
        environment = control.value(asked, "environment", dict)
        command = Command(tuple(control.items(asked, "argv", str)), environment, data or None)
        channel = self._tunnel.remote.session()
        threading.Thread(target=self._watch, args=(client, channel), daemon=True).start()

        def tell(line: str) -> None:
            try:
                control.say(stream, {"line": line})
            except OSError:
                raise _Gone from None

        on_line = tell if control.value(asked, "lines", bool) else None
        result = self._tunnel.remote.run(command, deadline=deadline, on_line=on_line, channel=channel)
        return {"code": result.code, "stdout": result.stdout, "stderr": result.stderr}

    def _watch(self, client: socket.socket, channel: Any) -> None:
        """End what runs on the channel when whoever asked for it goes: nothing more is said until then."""
        with contextlib.suppress(OSError):
            client.recv(1)
        self._tunnel.remote.end(channel)


class _Gone(Exception):
    """Whoever asked has gone: there is nobody to answer."""
