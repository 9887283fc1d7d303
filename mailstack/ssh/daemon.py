"""The daemon that keeps the connection to one host: `python -m mailstack.ssh.daemon HOST`; see `tunnel`."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading

from mailstack.secret import Secret
from mailstack.ssh import address, daemon_client, wire
from mailstack.ssh.address import CONTROL, ENGINE
from mailstack.ssh.daemon_control import Control
from mailstack.ssh.forwarding import Sockets, join
from mailstack.ssh.remote import Remote
from mailstack.ssh.tunnel import Tunnel
from mailstack.storage import directories


def main(name: str) -> None:
    """Connect, report it on standard input (a socket, which also brings the user's answers), and serve."""
    with socket.socket(fileno=os.dup(0)) as starter, starter.makefile("rwb") as stream:
        if (received := wire.receive(stream)) is None:
            return  # the process that started the daemon was killed
        answers = {question: Secret(wire.value(received, question, str)) for question in received}
        host = address.parse(name)
        remote = Remote(host, answers)
        directory = directories.root() / host.key
        tunnel = Tunnel(remote, directory)
        try:
            remote.open()
            tunnel.look()
            for place, handle in (
                (ENGINE, lambda client: join(client, tunnel.engine())),
                (CONTROL, Control(tunnel)),
            ):
                server = Sockets(directory / place, handle)
                threading.Thread(target=server.serve_forever, daemon=True).start()
            for lab in daemon_client.labs(directory):
                tunnel.forward(list(lab.ports.values()))
        except Exception as error:  # report every error to the process that started the daemon
            with contextlib.suppress(Exception):
                tunnel.clean_up()
            report = wire.error_document(error)
        else:
            report = {}
        # The process that started the daemon is its first user from now on, so `tunnel.client_left` is not called here.
        with contextlib.suppress(OSError):  # that process was killed
            wire.send(stream, report)
    if not report:
        remote.wait()
    tunnel.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
