"""The second lab of the experiment: a student whose provider is outside the lab."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mailstack.checks.judging import expect
from mailstack.engine import projects
from mailstack.lab import down
from mailstack.lab.leases import Leases, guard
from mailstack.lab.running import RunningLab
from mailstack.lab.up import Request, up
from mailstack.runner.local import Local


class SecondLab:
    """A lab next to the first lab, removed together with it."""

    def __init__(self, first: RunningLab) -> None:
        self.name = f"{first.name[:26]}-out"
        self._home, self._engine, self._target = first.directory.home, first.engine, first.target
        self.network = f"{projects.project_name(first.name)}_world"  # between the two labs
        self._leases = Leases(self._home, self.name)
        self._turn, self._over = threading.Lock(), False

    def bring_up(self, request: Request, connect: Callable[[], None]) -> RunningLab:
        """Bring the lab up, after `connect` has made the network. Raises Unmet when the experiment was interrupted."""
        with self._turn:
            expect(not self._over, "the experiment was interrupted")
            connect()
            self._leases.acquire()
            guard(self._target, self._home, self.name, Local())
            up(self._engine, request, lambda text: None)
        return RunningLab(self.name, self._engine)

    def remove(self) -> None:
        """Remove the lab and the network, after a running `bring_up` has ended. Later calls of `bring_up` fail."""
        with self._turn:
            self._over = True
            self._leases.release(lambda: down.down(self._engine, self.name, lambda text: None))
            # It has the first lab's labels, but may have been made after that lab was removed.
            self._engine.remove(f"network {self.network}")
