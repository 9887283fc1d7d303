"""An engine and a Compose in memory: complete `up` and `down` runs take milliseconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from mailstack.engine.engine import Engine
from mailstack.engine.unix_connection import Refused, Silent
from mailstack.model import PORTS, SERVICES, Command, Result
from mailstack.roles import LABEL, STANDARD
from mailstack.target.target import LocalTarget

OK = Result(0, "", "")
PROJECT = "com.docker.compose.project"

Labels = Mapping[str, str]


@dataclass
class Thing:
    """A container, network or volume."""

    labels: dict[str, str]
    state: str = "running"
    image: str = ""
    subnet: str = ""
    mounts: list[str] = field(default_factory=list)
    networks: dict[str, str] = field(default_factory=dict)  # name → id


class _Printed:
    """The log of a container that is followed."""

    def __init__(self) -> None:
        self._pieces = iter([b"daemon started -- version 3.10\n"])

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def end(self) -> None:
        """Do nothing: the log is not followed."""

    close = end


class MemoryApi:
    """The engine's API, with the method names of the SDK: records the calls, and keeps the objects in memory."""

    def __init__(self) -> None:
        self.containers_: dict[str, Thing] = {}
        self.networks_: dict[str, Thing] = {}
        self.volumes_: dict[str, Thing] = {}
        self.images = {"debian:trixie-slim"}
        self.release = "26.1.5"
        self.gone = False  # no engine answers
        self.asked: list[str] = []
        self.executed: list[tuple[str, ...]] = []  # container and command of each program that was run in one
        self.prints: dict[str, str] = {}  # container → the output of all programs in it
        self.before: dict[str, Callable[[], None]] = {}  # question → what happens just before its first answer

    def all(self) -> set[str]:
        """Return all objects except images."""
        return {*self.containers_, *self.networks_, *self.volumes_}

    def _answer(self, question: str) -> None:
        self.asked.append(question)
        if happens := self.before.pop(question, None):
            happens()
        if self.gone:
            raise Silent("connect: no such file")

    def version(self, *, api_version: bool) -> dict[str, Any]:
        self._answer("version")
        return {"Version": self.release}

    def info(self) -> dict[str, Any]:
        self._answer("info")
        return {"ID": "AN-ENGINE", "DockerRootDir": "/"}

    def containers(self, *, all: bool, filters: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        self._answer("containers")
        return [
            {
                "Id": name,
                "Names": [f"/{name}"],
                "Labels": each.labels,
                "State": each.state,
                "Image": each.image,
                "Mounts": [{"Type": "bind", "Source": path} for path in each.mounts],
                "NetworkSettings": {"Networks": {n: {"NetworkID": id} for n, id in each.networks.items()}},
            }
            for name, each in _with(self.containers_, filters["label"])
        ]

    def networks(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
        self._answer("networks")
        return [
            {
                "Name": name,
                "Id": f"id of {name}",
                "Labels": each.labels,
                "IPAM": {"Config": [{"Subnet": each.subnet}] if each.subnet else []},
            }
            for name, each in _with(self.networks_, (filters or {}).get("label", ()))
        ]

    def volumes(self, *, filters: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        self._answer("volumes")
        return {"Volumes": [{"Name": n, "Labels": each.labels} for n, each in _with(self.volumes_, filters["label"])]}

    def create_volume(self, name: str, *, labels: Labels) -> dict[str, Any]:
        self._answer("create volume")
        return {"Name": name, "Labels": self.volumes_.setdefault(name, Thing(dict(labels))).labels}

    def inspect_container(self, container: str) -> dict[str, Any]:
        self._answer("inspect")
        found = self.containers_[container]
        return {
            "Id": container,
            "Config": {"Image": found.image, "Labels": found.labels},
            "State": {
                "Status": found.state,
                "ExitCode": int(found.state != "running"),
                "FinishedAt": "0001-01-01T00:00:00Z",
            },
            "HostConfig": {"LogConfig": {"Type": "local", "Config": {}}},
            "NetworkSettings": {"Networks": {}, "Ports": {}},
        }

    def logs(self, container: str, **options: Any) -> Any:
        self._answer("logs")
        return _Printed() if options.get("stream") else f"the last words of {container}\n".encode()

    def inspect_image(self, reference: str) -> dict[str, Any]:
        self._answer("image")
        if reference not in self.images:
            raise Refused(404, reference)
        return {"Id": f"sha256:{reference}"}

    def inspect_network(self, name: str) -> dict[str, Any]:
        return {"Containers": {}}

    def execute(self, container: str, argv: Sequence[str], **options: Any) -> Result:
        """Stand in for `Engine.execute`."""
        self._answer("execute")
        self.executed.append((container, *argv))
        return Result(0, self.prints.get(container, ""), "")

    def unpause(self, container: str) -> None:
        self._answer("unpause")
        self.containers_[container].state = "running"

    def remove_container(self, name: str, **options: Any) -> None:
        self._answer("remove container")
        self.containers_.pop(name, None)

    def remove_network(self, name: str) -> None:
        self._answer("remove network")
        self.networks_.pop(name, None)

    def remove_volume(self, name: str, **options: Any) -> None:
        self._answer("remove volume")
        self.volumes_.pop(name, None)


def _with(things: Mapping[str, Thing], wanted: Sequence[str]) -> list[tuple[str, Thing]]:
    pairs = [label.partition("=") for label in wanted]
    return [
        (name, each)
        for name, each in list(things.items())
        if all(key in each.labels and (not sign or each.labels[key] == value) for key, sign, value in pairs)
    ]


def engine(api: MemoryApi) -> Engine:
    """Return an Engine on the API in memory."""
    made = Engine(LocalTarget("unix:///nowhere/docker.sock"))
    execute = lambda *words, **options: api.execute(*words, **options)  # noqa: E731, PLW0108 - a test may replace it
    vars(made).update(_api=api, _quick=api, execute=execute)
    return made


class MemoryCompose:
    """The effects of `docker compose` on the engine in memory: answers the commands of a FakeRunner."""

    def __init__(self, api: MemoryApi) -> None:
        self.api = api
        self.block: dict[str, Any] = {
            "mailname": "example.com",
            "domains": {"example.com": {}},
            "accounts": {"alice@example.com": {}, "bob@example.com": {}},
        }
        self.services: dict[str, dict[str, Any]] = {}  # what an overlay adds
        self.failures: list[Callable[[dict[str, Any]], str]] = []  # one for each `up` that fails; gives its words

    def __call__(self, command: Command) -> Result:
        words = command.argv[1:]
        if words == ("version", "--short"):
            return Result(0, "2.40.0\n", "")
        project, verb = words[1], next(word for word in words[2:] if word in _VERBS)
        given = json.loads(command.input) if command.input else None
        if verb == "config":
            document = given or self.document(project, command.environment)
            text = "".join(f"{n} {_digest(s)}\n" for n, s in document["services"].items())
            return Result(0, text if "--hash" in words else json.dumps(document), "")
        if verb == "up":
            document = given or self.document(project, command.environment)
            files = [Path(file) for flag, file in pairwise(words) if flag == "-f" and file != "-"]
            subnets = [json.loads(path.read_text())["networks"] for path in files if path.name == "subnets.yaml"]
            return self._up(project, document, subnets[0] if subnets else {}, anew="--force-recreate" in words)
        if verb == "down":
            for things in (self.api.containers_, self.api.networks_, self.api.volumes_):
                for name, _ in _with(things, [f"{PROJECT}={project}"]):
                    del things[name]
        if verb == "build":
            tag = command.environment["MAILSTACK_TAG"]
            self.api.images |= {f"mailstack/{service}:{tag}" for service in SERVICES}
        return OK

    def document(self, project: str, environment: Mapping[str, str]) -> dict[str, Any]:
        """Return the lab's compose files, resolved."""
        labels = {f"mailstack.{key}": environment[f"MAILSTACK_{key.upper()}"] for key in ("lab", "owner", "expires")}
        services: dict[str, dict[str, Any]] = {
            name: {
                "image": f"mailstack/{name}:{environment['MAILSTACK_TAG']}",
                "labels": {**labels, **role(name)},
                "configs": [{"source": file} for file in _CONFIGS[name]],
                "networks": {"mail": {}} if name == "sender" else {"mail": {}, "edge": {}},
                "ports": [
                    {"host_ip": "127.0.0.1", "published": environment.get(port.variable, ""), "target": port.number}
                    for port in PORTS
                    if port.service == name
                ],
            }
            for name in SERVICES
        }
        return {
            "services": {**services, **self.services},
            "networks": {name: {"name": f"{project}_{name}", "labels": labels} for name in ("mail", "edge")},
            "volumes": {name: {"name": f"{project}_{name}", "labels": labels} for name in ("mailboxes", "queue")},
            "x-mailstack": self.block,
        }

    def _up(self, project: str, document: dict[str, Any], subnets: dict[str, Any], *, anew: bool) -> Result:
        if self.failures and (said := self.failures.pop(0)(document)):
            return Result(1, "", said)
        if missing := {s["image"] for s in document["services"].values()} - self.api.images:
            return Result(1, "", f"Error response from daemon: No such image: {sorted(missing)[0]}")
        for key, network in document["networks"].items():
            self.network(project, network, subnets[key]["ipam"]["config"][0]["subnet"])
        for volume in document["volumes"].values():
            self.api.volumes_.setdefault(volume["name"], Thing({**volume["labels"], PROJECT: project}))
        told: list[str] = []
        for name, service in document["services"].items():
            container = f"{project}-{name}-1"
            labels = {**service.get("labels", {}), PROJECT: project, "com.docker.compose.service": name}
            labels["com.docker.compose.config-hash"] = _digest(service)
            known = self.api.containers_.get(container)
            if anew or known is None or known.labels != labels:
                names = [document["networks"][key]["name"] for key in service.get("networks", ())]
                networks = {each: f"id of {each}" for each in names}
                self.api.containers_[container] = Thing(labels, image=service["image"], networks=networks)
            elif known.state == "running":
                continue
            self.api.containers_[container].state = "running"
            told.append(f" Container {container}  Started")
        for name, each in _with(self.api.containers_, [f"{PROJECT}={project}"]):
            if each.labels["com.docker.compose.service"] not in document["services"]:
                del self.api.containers_[name]
        return Result(0, "", "\n".join(told))

    def network(self, project: str, network: dict[str, Any], subnet: str) -> None:
        """Create a network of a document."""
        labels = {**network["labels"], PROJECT: project}
        self.api.networks_.setdefault(network["name"], Thing(labels, subnet=subnet))


def role(service: str) -> dict[str, str]:
    """Return the role label of one of the lab's own services."""
    return {LABEL: next(role for role, name in STANDARD.items() if name == service)}


_CONFIGS = {
    "postfix": ("postfix.cf", "mailboxes", "aliases", "owners"),
    "dovecot": ("dovecot.conf",),
    "sender": ("sender.cf", "ca.pem"),
}
_VERBS = ("config", "up", "down", "restart", "build", "version")


def _digest(service: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(service, sort_keys=True).encode()).hexdigest()
