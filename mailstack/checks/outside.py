"""A listener outside the lab: nothing in the lab may reach it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from mailstack import claims, compose
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER
from mailstack.running import RunningLab

PORT = 2525
# How long the listener may take to start.
_START_SECONDS = 8.0
_UNTIL_IT_LISTENS = 'until nc -z -w 1 127.0.0.1 "$0"; do sleep 0.02; done'


@dataclass(frozen=True, slots=True)
class Listener:
    """A container on a network of its own that accepts connections."""

    address: str
    network: str
    listens: bool  # whether it accepts connections, at its own address

    def __str__(self) -> str:
        return f"{self.address}:{PORT} on the network {self.network}"


class Outside:
    """Starts the listener of a lab when it is first needed, and removes it.

    Its network is named after the lab, with `-outside`; one that exists already is used, and kept.
    """

    def __init__(self, lab: RunningLab) -> None:
        self._lab = lab
        self._lock = threading.Lock()
        self._made: list[str] = []
        self._listener: Listener | None = None

    def listener(self) -> Listener:
        """Return the listener, once it accepts connections, or has not in time. Raises HostError."""
        with self._lock:
            if self._listener is None:
                self._listener = self._start()
            return self._listener

    def _start(self) -> Listener:
        lab, engine = self._lab, self._lab.engine
        name = f"{compose.project_name(lab.name)}-outside"
        labels = {LABEL_LAB: lab.name, LABEL_OWNER: lab.state.owner, LABEL_EXPIRES: lab.state.expires}
        if claims.make_network(engine, name, labels):
            self._made.append(f"network {name}")
        self._made.append(f"container {name}")
        container, address = engine.listen(name, f"mailstack/sender:{lab.state.tag}", name, labels, PORT)
        wait = ["timeout", f"{_START_SECONDS:g}", "sh", "-c", _UNTIL_IT_LISTENS, str(PORT)]
        return Listener(address, name, engine.execute(container, wait).code == 0)

    def remove(self) -> None:
        """Remove the listener, and its network where that was made for it. Safe to call twice."""
        with self._lock:
            while self._made:
                self._lab.engine.remove(self._made.pop())
