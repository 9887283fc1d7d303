"""Start a lab's containers with Compose; retry when images are missing or another process took a port or a subnet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mailstack.config import files
from mailstack.engine import compose
from mailstack.errors import HostError
from mailstack.images import build as images
from mailstack.lab import claims, plan
from mailstack.lab.observation import Observation, idle_services, observe_failure
from mailstack.lab.plan import Desired
from mailstack.lab.resolve import resolve
from mailstack.lab.running import project
from mailstack.lab.service_events import EndedServices, Starts
from mailstack.lab.steps import BuildImages, ComposeUp, Move
from mailstack.lab.tools import Tools
from mailstack.model import Deadline, Result
from mailstack.runner.local import last_lines
from mailstack.state import LabDirectory, State
from mailstack.target.target import Target

# Time limit for Compose, in seconds: many times what a slow machine needs.
UP_SECONDS = 120.0


class Startup:
    """The start of one lab; `desired` is the lab with its final ports and subnets."""

    def __init__(
        self, tools: Tools, directory: LabDirectory, desired: Desired, seen: Observation, starts: Starts
    ) -> None:
        self.desired = desired
        self.tools = tools
        self.directory = directory
        self._new = seen.is_new
        self.ended_services = EndedServices(tools.engine, directory.name)
        self.starts = starts
        self._built = False

    @property
    def compose(self) -> compose.Compose:
        """Compose for the lab with its present ports and subnets."""
        return project(self.tools.target, self.tools.runner, self.desired.state, self.directory, self.desired.document)

    def run(self, step: ComposeUp, on_failure: Callable[[], None]) -> None:
        """Start the containers; call `on_failure` each time Compose fails. Raises HostError."""
        result = self._up(step, report_starts=True)
        moves = 0
        while result.code != 0 and moves <= claims.CLAIMS:
            on_failure()
            desired = self.desired
            reason = observe_failure(
                self.tools,
                desired.state,
                desired.document,
                new=self._new and moves < claims.CLAIMS,
                images=not self._built and not moves,
            )
            steps = plan.recovery(reason, desired)
            if not steps:
                break
            for each in steps:
                match each:
                    case BuildImages():
                        self.build(each)
                        self.tools.progress("starting the containers")
                    case Move():
                        moves += 1
                        self._move(each)
                        self.tools.progress("starting the containers again")
                    case ComposeUp():
                        result = self._up(each)
        if result.code != 0:
            raise self._failure(result)

    def build(self, step: BuildImages) -> None:
        """Build the images or send them, so that the engine has them. Raises HostError."""
        self._built = True
        tools = self.tools
        images.ensure_images(
            tools.engine, tools.runner, self.compose.build(), step.names, tools.progress, own_engine=tools.own_engine
        )

    def _up(self, step: ComposeUp, *, report_starts: bool = False) -> Result:
        return self.tools.runner.run(
            self.compose.up(anew=step.anew),
            deadline=Deadline.after(UP_SECONDS),
            on_line=self.starts.on_line if report_starts else None,
        )

    def _move(self, step: Move) -> None:
        """Remove the lab's containers and networks, and choose other ports and subnets."""
        tools, state = self.tools, self.desired.state
        tools.progress(f"another process has taken {', '.join(step.names)}")
        tools.runner.run(self.compose.down(), deadline=Deadline.after(UP_SECONDS))
        tools.target.close(state.ports.values())
        state = replace(state, ports=claims.allocate_ports(tools.target, tools.home, state.lab), subnets={})
        paths = [Path(name) for name in state.files]
        document = resolve(tools.runner, project(tools.target, tools.runner, state, self.directory), paths)
        networks = tools.engine.networks()
        chosen = claims.allocate_subnets(
            tools.target, tools.home, state, document, networks, refused=[each for each in step.names if "/" in each]
        )
        self.desired = replace(self.desired, state=replace(state, subnets=chosen), document=document)
        self.directory.save(self.desired.state)
        forward(tools.target, self.desired.state)

    def _failure(self, result: Result) -> HostError:
        target, state, document = self.tools.target, self.desired.state, self.desired.document
        idle = idle_services(self.tools, state, document)
        taken = "".join(f"; {address} is in use" for address in claims.taken_ports(target, document, idle))
        remedy = f"`{target.line('doctor')}` shows what is missing"
        if not self._new and claims.lost_ports(target, state, document, idle):
            remedy = f"stop what listens there, or `{target.line('down', lab=state.lab)}`: a new lab chooses others"
        logs = self.ended_services.logs() or last_lines(compose.without_progress(result.stderr), 6)
        return HostError(
            f"lab “{state.lab}” could not be started" + self.ended_services.summary() + taken,
            details=files.blot(self.directory.files, logs),
            remedy=remedy,
        )


def forward(target: Target, desired: State) -> None:
    """Forward the lab's ports to its host, when it is on another one. Raises HostError when a port is in use."""
    if lost := target.forward(desired.ports.values()):
        addresses = ", ".join(f"127.0.0.1:{port}" for port in lost)
        raise HostError(
            f"{addresses} of this machine is needed for the lab, and in use",
            remedy=f"stop what listens there, or `{target.line('down', lab=desired.lab)}`: a new lab chooses others",
        )
