"""A lab's services while it comes up: which have been started, and which have ended and what they said last."""

from __future__ import annotations

import threading

from mailstack.engine import compose
from mailstack.engine.engine import Engine
from mailstack.model import ServiceState
from mailstack.runner.local import last_lines


class Starts:
    """The services that Compose has started, for threads that wait for them."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._started: set[str] = set()
        self._finished = False
        self._changed = threading.Condition()
        self._said: list[str] = []

    def hear(self, line: str) -> None:
        """Take note of what Compose says as it goes."""
        self._said.append(line)
        if service := compose.started(line, self._project):
            with self._changed:
                self._started.add(service)
                self._changed.notify_all()

    def finish(self) -> None:
        """Compose has ended: there is nothing more to wait for."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def being_made(self) -> frozenset[str]:
        """What Compose had asked the engine for and not been given when it ended; see `compose.being_made`."""
        return compose.being_made(self._said)

    def wait(self, service: str) -> None:
        """Until the service has been started, or Compose has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._finished or service in self._started)


class Endings:
    """The services that have ended; the engine is asked afresh each time."""

    def __init__(self, engine: Engine, lab: str) -> None:
        self._engine = engine
        self._project = compose.project_name(lab)

    def states(self) -> list[ServiceState]:
        """The lab's containers, in any state."""
        return self._engine.services(self._project)

    def any(self) -> bool:
        """Whether a service has ended: then there is nothing to wait for."""
        return any(service.state == "exited" for service in self.states())

    def told(self) -> str:
        """Which ones have ended, as the end of a sentence; "" when none has."""
        return "".join(f"; {service.name} ended with code {service.exit_code}" for service in self._ended())

    def logs(self) -> str:
        """The last lines of those that have ended."""
        return self._last_words(self._ended(), 10)

    def all_logs(self) -> str:
        """The last lines of all."""
        return self._last_words(self.states(), 5)

    def _ended(self) -> list[ServiceState]:
        return [service for service in self.states() if service.state not in ("running", "created")]

    def _last_words(self, services: list[ServiceState], count: int) -> str:
        return "\n".join(
            f"{service.name} | {line}"
            for service in services
            for line in last_lines(self._engine.logs(service.container, tail=count), count).splitlines()
        )
