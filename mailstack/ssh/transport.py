"""An SSH transport that can also open a channel to a Unix socket and signal a program, unlike paramiko's own."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import Any, ClassVar

# OpenSSH's PROTOCOL, section 2.4.
STREAM_LOCAL = "direct-streamlocal@openssh.com"


def kind() -> Any:
    """Return a transport class that can open a channel to a Unix socket, a channel type that paramiko does not know."""
    import threading

    import paramiko

    opening = paramiko.Message()
    opening.add_byte(paramiko.common.cMSG_CHANNEL_OPEN)  # RFC 4254, section 5.1
    opening.add_string(STREAM_LOCAL)

    class Transport(paramiko.Transport):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.last_heard = time.monotonic()  # when the host last sent anything
            read = self.packetizer.read_message

            def read_message() -> Any:
                message = read()
                self.last_heard = time.monotonic()
                return message

            self.packetizer.read_message = read_message
            self.socket_path = ""
            self.socket_lock = threading.Lock()

        def _send_user_message(self, data: Any) -> None:
            if data.asbytes().startswith(opening.asbytes()):  # after the part that all channel types share
                data.add_string(self.socket_path)
                data.add_string("")
                data.add_int(0)
            super()._send_user_message(data)

        def signal(self, channel: Any, name: str) -> None:
            """Send a signal (TERM, KILL) to the program on a channel (RFC 4254, section 6.9)."""
            request = paramiko.Message()
            request.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
            request.add_int(channel.remote_chanid)
            request.add_string("signal")
            request.add_boolean(False)  # want reply: no
            request.add_string(name)
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):  # the connection is closed
                self._send_user_message(request)

        _channel_handler_table: ClassVar[dict[int, Any]] = {
            **paramiko.Transport._channel_handler_table,
            paramiko.common.MSG_CHANNEL_REQUEST: _request,
        }

    return Transport


def _request(channel: Any, message: Any) -> None:
    """Handle a request on a channel. The library does not know that a signal ended a command (section 6.10)."""
    if message.get_text() == "exit-signal":
        message.get_boolean()
        channel.exit_status = ended_by(message.get_text())
        channel.status_event.set()
        return
    message.rewind()
    message.get_int()  # the channel number
    channel._handle_request(message)


def ended_by(name: str) -> int:
    """Return the exit code of a command that a signal ended: -N, as for a child process.

    Returns 255 for an unknown signal, and for SIGHUP: its -1 is the library's value for “no exit status yet”.
    """
    number = signal.Signals.__members__.get(f"SIG{name}", signal.SIGHUP)
    return 255 if number == signal.SIGHUP else -number
