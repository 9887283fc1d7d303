"""Repeated inspection of a lab's queues: milliseconds each time, where an `exec` each time took a tenth of a second."""

from __future__ import annotations

import socket

from mailstack.actions import queues
from mailstack.errors import CommandFailed
from mailstack.lab.running import RunningLab

# The time limit for one inspection; generous, since machines in CI are slow.
_SECONDS = 30.0


class QueueWatch:
    """Inspects a lab's queues repeatedly, with one program in each container that is started once."""

    def __init__(self, lab: RunningLab) -> None:
        self._lab = lab
        self._programs: dict[str, socket.socket] = {}

    def __enter__(self) -> QueueWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def entries(self) -> list[queues.Entry]:
        """Return the queue entries of all running services. Raises HostError if none runs, CommandFailed."""
        try:
            return self._inspect()
        except CommandFailed:
            self._close()  # a container was restarted or stopped
            return self._inspect()

    def mail(self, entry: queues.Entry) -> bytes:
        """Return a mail from a queue as it was received (postcat(1)); b"" if it has left the queue."""
        container = self._lab.service(entry.service).container
        result = self._lab.engine.execute(container, ["postcat", "-hbq", entry.queue_id])
        return result.stdout.encode() if result.code == 0 else b""

    def _close(self) -> None:
        for program in self._programs.values():
            program.close()
        self._programs = {}

    def _inspect(self) -> list[queues.Entry]:
        if not self._programs:
            script = f"while read -r _; do {queues.LIST} || break; done"
            for service, container in queues.containers(self._lab).items():
                self._programs[service] = self._lab.engine.stream(container, ["sh", "-c", script])
                self._programs[service].settimeout(_SECONDS)
        programs = self._programs
        found = queues.inspect_all(lambda service: queues.parsed(service, _listing(programs[service])), list(programs))
        if len(programs) < len(queues.services(self._lab.defined)):
            self._close()  # the other containers may run again at the next inspection
        return found


def _listing(program: socket.socket) -> str:
    """Return the answer of the program in a container to one request."""
    listing = b""
    try:
        program.sendall(b"\n")
        while not listing.endswith(b"end\n"):
            more = program.recv(65536)
            if not more:
                raise CommandFailed("the queue cannot be listed any more")
            listing += more
    except OSError as error:
        raise CommandFailed(f"the queue cannot be listed: {error}") from None
    return listing.decode(errors="replace").removesuffix("end\n")
