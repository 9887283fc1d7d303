"""A lab that was brought up, on which every command except `up` works."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from mailstack import state
from mailstack.config import files
from mailstack.definition import schema
from mailstack.engine import compose, projects
from mailstack.engine.engine import Engine
from mailstack.engine.inventory import Inventory
from mailstack.errors import HostError, InputError, MailstackError
from mailstack.lab import elsewhere, homes
from mailstack.lab.changes import Change
from mailstack.model import PORTS, Deadline, Endpoint, Json, Lab, Progress, ServiceState
from mailstack.roles import Role
from mailstack.runner.local import Runner
from mailstack.secret import Blotter, Secret
from mailstack.storage import directories
from mailstack.target.target import Target


def endpoints_json(endpoints: Mapping[str, Endpoint]) -> Json:
    """Return endpoints as in every JSON document."""
    return {name: {"host": endpoint.host, "port": endpoint.port} for name, endpoint in endpoints.items()}


class RunningLab:
    """A lab that was brought up: its state, endpoints, passwords and services."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        directory: state.LabDirectory | None = None,
        state: state.State | None = None,
    ) -> None:
        """Find a lab; `directory` and `state` are passed when already known. Raises InputError, EngineError."""
        self.directory = directory or homes.known_directory(engine, name)
        record = state or self.directory.load()
        if record is None:
            raise _no_lab(engine, self.directory.home, name)
        self.state = record
        self.name = name
        self.engine = engine
        self.target = engine.target
        try:
            self.defined: Lab = record.definition()  # without accounts added since `up`; see `definition`
        except schema.InvalidDefinition as error:  # written by a version that accepted more
            place = ".".join(map(str, error.keys))
            raise InputError(
                f"lab “{name}” was brought up with a definition that is no longer accepted: {place}: {error.message}",
                remedy=f"{self.line('down')}, change the definition, then up",
            ) from None
        self.temporary = Change(self.directory.path)  # the temporary accounts of this process

    def line(self, *words: str) -> str:
        """Return a command line of mailstack for the user to type, about this lab."""
        return self.target.line(*words, lab=self.name)

    def definition(self) -> Lab:
        """Return the present definition: `defined`, with the accounts that were added since `up`."""
        added = files.added(self.directory.files)
        return dataclasses.replace(self.defined, accounts=(*self.defined.accounts, *added)) if added else self.defined

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """The published ports of the lab on this machine, by protocol."""
        numbers, host = self.state.ports, self.target.host
        return {port.name: Endpoint("127.0.0.1", numbers[port.name], self.name, host) for port in PORTS}

    @property
    def ca_file(self) -> Path:
        """The file with the lab's CA certificate."""
        return self.directory.ca_file

    def password(self, address: str) -> Secret:
        """Return an account's password. Raises InputError when there is no such account."""
        password = files.passwords(self.directory.files).get(address.lower())
        if password is None:
            raise InputError(
                f"{address} is not an account of lab “{self.name}”",
                remedy="accounts: " + ", ".join(self.definition().addresses()),
            )
        return password

    def locked(self, progress: Progress) -> AbstractContextManager[int]:
        """Hold the lab's lock; say so when another command holds it. Raises DeadlinePassed, HostError."""
        deadline = Deadline.after(state.LOCK_SECONDS)
        return self.directory.locked(deadline, lambda: progress("waiting for another command on this lab"))

    def blotter(self) -> Blotter:
        """Return a Blotter that removes the lab's present secrets from texts that are shown or kept."""
        return files.blotter(self.directory.files)

    def compose(self, runner: Runner) -> compose.Compose:
        """Return Compose for this lab."""
        return project(self.target, runner, self.state, self.directory)

    def services(self) -> list[ServiceState]:
        """Return its containers, in any state."""
        return self.engine.services(projects.project_name(self.name))

    def services_with_missing(self) -> list[ServiceState]:
        """Return its services: containers in any state, and services without a container, whose state is `missing`."""
        found = {state.name: state for state in self.services()}
        absent = {each.name: ServiceState.missing(each) for each in self.state.services if each.name not in found}
        return sorted((found | absent).values(), key=lambda state: state.name)

    def name_idle_services(self, error: MailstackError) -> None:
        """Add to an error the services that do not run, which may explain it, and what starts them."""
        repair = self.line("up")
        if repair in error.remedy:
            return
        with contextlib.suppress(MailstackError):
            if idle := [f"{each.name} ({each.state})" for each in self.services_with_missing() if not each.runs]:
                error.message += f"; not running: {', '.join(idle)}"
                error.remedy = f"`{repair}` starts {'it' if len(idle) == 1 else 'them'} again"

    def by_role(self, role: Role) -> list[ServiceState]:
        """Return its containers of a role, in any state; `mta` selects all that have a queue."""
        return self.engine.services(projects.project_name(self.name), role=role)

    def service(self, name: str) -> ServiceState:
        """Return a running service. Raises HostError when it is not running."""
        return self._running(self.engine.services(projects.project_name(self.name), name), name)

    def one(self, role: Role) -> ServiceState:
        """Return the running service of a unique role: submission, store or sender. Raises HostError."""
        containers = self.by_role(role)
        if len(containers) > 1:
            raise HostError(
                f"{' and '.join(each.name for each in containers)} of lab “{self.name}” have the role {role}"
            )
        return self._running(containers, self.defined.name(role))

    def check_names(self, names: Iterable[str]) -> None:
        """Raise InputError unless all names are services of the lab, with or without containers."""
        known = {service.name for service in self.defined.services}
        if known.issuperset(names):
            return
        known |= {service.name for service in self.services()}
        for name in sorted(set(names) - known):
            remedy = f"services: {', '.join(sorted(known))}"
            raise InputError(f"lab “{self.name}” has no service {name!r}", remedy=remedy)

    def _running(self, containers: Sequence[ServiceState], name: str) -> ServiceState:
        remedy = f"{self.line('up')} starts it again"
        if not containers:
            raise HostError(f"lab “{self.name}” has no {name}", remedy=remedy)
        if containers[0].state != "running":
            raise HostError(
                f"{containers[0].name} of lab “{self.name}” is not running ({containers[0].state})", remedy=remedy
            )
        return containers[0]


def _no_lab(engine: Engine, home: state.Home, name: str) -> InputError:
    inventory = engine.inventory(name) if home.endpoint else Inventory(name)  # the engine has answered
    if state.owner() in inventory.owners():
        places = elsewhere.find(engine.target, inventory, state.LabDirectory(home, name))
        repair, removal = engine.target.line("up", lab=name), engine.target.line("down", lab=name)
        return InputError(
            f"lab “{name}” is on this engine, and its files are "
            + (f"in {places[0]}" if places else f"not in {home.root.parent}"),
            remedy=f"set {directories.VARIABLE} as it was for its `up`; if they were removed, `{repair}` creates them"
            f" again and keeps its mail, and `{removal}` removes the lab",
        )
    endpoints = homes.on_other_engines(home, name)
    known = home.labs()
    return InputError(
        f"there is no lab “{name}”"
        + (f" at {home.endpoint}; it is at {' and '.join(endpoints)}" if endpoints else "")
        + (f"; existing labs: {', '.join(known)}" if known else ""),
        remedy=engine.target.line("up", lab=name),
    )


def project(
    target: Target, runner: Runner, lab: state.State, directory: state.LabDirectory, document: Json | None = None
) -> compose.Compose:
    """Return Compose for a lab's files, or for the `document` that it has resolved them to."""
    environment = {
        **target.environment,
        "MAILSTACK_LAB": lab.lab,
        "MAILSTACK_OWNER": lab.owner,
        "MAILSTACK_EXPIRES": lab.expires,
        "MAILSTACK_TAG": lab.tag,
        "MAILSTACK_SECRETS": target.files_of(directory.files),
    }
    environment |= {port.variable: str(lab.ports[port.name]) for port in PORTS if port.name in lab.ports}
    if lab.relay:
        host, _, number = lab.relay.rpartition(":")
        environment |= {"MAILSTACK_RELAY_HOST": host, "MAILSTACK_RELAY_PORT": number}
    # A resolved document contains all files. The first one gives the project directory.
    paths = [Path(name) for name in (lab.files if document is None else lab.files[:1])]
    if lab.subnets:
        paths.append(directory.subnets_file)
    return compose.Compose(compose.find(runner), projects.project_name(lab.lab), paths, environment, document)
