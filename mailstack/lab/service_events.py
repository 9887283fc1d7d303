"""The services of a lab during `up`: those that have been started, those that have ended, and their last log lines."""

from __future__ import annotations

import threading

from mailstack.engine import compose, projects
from mailstack.engine.engine import Engine
from mailstack.model import ServiceState
from mailstack.runner.local import last_lines


class Starts:
    """The services that Compose has started; other threads wait for them."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._started: set[str] = set()
        self._finished = False
        self._changed = threading.Condition()
        self._lines: list[str] = []

    def on_line(self, line: str) -> None:
        """Process one line of Compose's output."""
        self._lines.append(line)
        if service := compose.started_service(line, self._project):
            with self._changed:
                self._started.add(service)
                self._changed.notify_all()

    def finish(self) -> None:
        """Record the end of Compose, and wake all waiting threads."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def names(self) -> frozenset[str]:
        """Return the services that Compose has started."""
        return frozenset(self._started)

    def unfinished_objects(self) -> frozenset[str]:
        """Return the objects that Compose had requested and not received when it ended."""
        return compose.objects_in_creation(self._lines)

    def wait(self, service: str) -> None:
        """Wait until the service has been started, or Compose has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._finished or service in self._started)


class EndedServices:
    """The services that have ended; each call queries the engine."""

    def __init__(self, engine: Engine, lab: str) -> None:
        self._engine = engine
        self._project = projects.project_name(lab)

    def states(self) -> list[ServiceState]:
        """Return the lab's containers, in any state."""
        return self._engine.services(self._project)

    def any(self) -> bool:
        """Return whether a service has ended: then waiting for the lab is useless."""
        return any(service.state == "exited" for service in self.states())

    def summary(self) -> str:
        """Return the services that have ended, as the end of a sentence; "" when none has."""
        return "".join(f"; {service.name} exited with code {service.exit_code}" for service in self._ended())

    def logs(self) -> str:
        """Return the last log lines of the services that have ended."""
        return self._last_log_lines(self._ended(), 10)

    def all_logs(self) -> str:
        """Return the last log lines of all services."""
        return self._last_log_lines(self.states(), 5)

    def _ended(self) -> list[ServiceState]:
        return [service for service in self.states() if service.state in ("exited", "dead")]

    def _last_log_lines(self, services: list[ServiceState], count: int) -> str:
        return "\n".join(
            f"{service.name} | {line}"
            for service in services
            for line in last_lines(self._engine.logs(service.container, tail=count), count).splitlines()
        )
