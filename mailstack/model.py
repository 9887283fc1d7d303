"""The nouns of mailstack, as frozen data. The module opens no file and no socket, and starts no process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mailstack.roles import STANDARD, Role, Service

LABEL_LAB = "mailstack.lab"
LABEL_OWNER = "mailstack.owner"
LABEL_EXPIRES = "mailstack.expires"

SERVICES = tuple(STANDARD.values())
STUDENT = "student"  # the user of the sender


@dataclass(frozen=True, slots=True)
class Port:
    """A published port: its name in `--json`, the role of its service, and the port number in the container."""

    name: str
    role: Role
    number: int
    variable: str  # environment variable with the host's port number, for compose/lab.yaml

    @property
    def service(self) -> str:
        """The name of its service in compose/lab.yaml."""
        return STANDARD[self.role]


PORTS = (
    Port("submission", Role.SUBMISSION, 587, "MAILSTACK_PORT_SUBMISSION"),
    Port("submissions", Role.SUBMISSION, 465, "MAILSTACK_PORT_SUBMISSIONS"),
    Port("smtp", Role.SUBMISSION, 25, "MAILSTACK_PORT_SMTP"),
    Port("imap", Role.STORE, 143, "MAILSTACK_PORT_IMAP"),
    Port("imaps", Role.STORE, 993, "MAILSTACK_PORT_IMAPS"),
    Port("pop3", Role.STORE, 110, "MAILSTACK_PORT_POP3"),
    Port("pop3s", Role.STORE, 995, "MAILSTACK_PORT_POP3S"),
)


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the engine."""

    name: str
    labels: Mapping[str, str]
    subnets: tuple[str, ...]  # as the engine writes them: 172.17.0.0/16
    id: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address at which a client reaches a service."""

    host: str
    port: int
    lab: str = field(default="", compare=False)  # its lab, for messages
    target: str = field(default="", compare=False)  # the host over SSH that the lab is on, for messages


@dataclass(frozen=True, slots=True)
class Domain:
    """A mail domain of the lab; mail for unknown users goes to `catch_all`, if set."""

    name: str
    catch_all: str | None = None


# The quota of a mailbox without limit; Dovecot need not count its size.
UNLIMITED = 0


@dataclass(frozen=True, slots=True)
class Account:
    """A mailbox with a password."""

    address: str
    quota: int | None = None  # bytes, or UNLIMITED; None is the lab's `mailbox_quota`


@dataclass(frozen=True, slots=True)
class Alias:
    """An address whose mail goes to other addresses."""

    address: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the servers, which refuse larger messages and fuller mailboxes."""

    message_size: int = 10 * 1024**2  # bytes
    mailbox_quota: int = 100 * 1024**2  # bytes


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay host outside the lab, with its port for submission."""

    host: str
    port: int = 587


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the servers that an overlay adds; they override the lab's own."""

    postfix: Mapping[str, str] = field(default_factory=dict)
    sender: Mapping[str, str] = field(default_factory=dict)
    dovecot: str = ""


@dataclass(frozen=True, slots=True)
class Lab:
    """The definition of a lab: the checked `x-mailstack` block of its compose files, and its services with roles."""

    mailname: str
    domains: tuple[Domain, ...]
    accounts: tuple[Account, ...]
    aliases: tuple[Alias, ...] = ()
    limits: Limits = Limits()
    relay: Relay | None = None  # None: the provider in the lab
    settings: Settings = Settings()
    services: tuple[Service, ...] = ()  # see `roles.in_order`
    blank: bool = False  # the sender is as Debian's package leaves it, without a relay host

    def names(self, role: Role) -> list[str]:
        """Return the names of the services with a role, in order."""
        return [service.name for service in self.services if service.role and service.role.is_a(role)]

    def name(self, role: Role) -> str:
        """Return the name of the service with a unique role."""
        return next(iter(self.names(role)), STANDARD[role])

    def addresses(self) -> list[str]:
        """Return the accounts' addresses, in the order of Compose, which is alphabetical."""
        return [account.address for account in self.accounts]

    def owned_by(self, address: str) -> list[str]:
        """Return the aliases with `address` as a direct target: it may send as them."""
        return [alias.address for alias in self.aliases if address in alias.targets]


@dataclass(frozen=True, slots=True)
class Command:
    """A command as a value; a runner decides how and where it runs. Secrets are passed only in `input`."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # added to the runner's own
    input: bytes | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a command: exit code and output."""

    code: int
    stdout: str
    stderr: str


class Verdict(StrEnum):
    """The verdict of a check."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check's verdict, with its evidence."""

    id: str
    title: str
    source: str
    verdict: Verdict
    evidence: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A service of a running lab, as the engine sees it."""

    name: str
    image: str
    state: str  # running, exited, …
    health: str  # healthy, unhealthy, starting, or "" where the image has no healthcheck
    container: str  # id
    addresses: Mapping[str, str]  # network -> IP address
    ports: Mapping[int, int]  # port in the container -> port on 127.0.0.1
    exit_code: int = 0
    role: Role | None = None

    @property
    def runs(self) -> bool:
        """Whether it is running: neither stopped nor paused."""
        return self.state == "running"

    @classmethod
    def missing(cls, service: Service) -> ServiceState:
        """Return the state of a service without a container."""
        return ServiceState(service.name, "", "missing", "", "", {}, {}, role=service.role)


class Deadline:
    """A time limit: its end on the monotonic clock, and its length in seconds."""

    def __init__(self, seconds: float, moment: float) -> None:
        self.seconds = seconds
        self._moment = moment

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline `seconds` from now."""
        return Deadline(seconds, time.monotonic() + seconds)

    def remaining(self) -> float:
        """Return the seconds left; 0 after the deadline."""
        return max(0.0, self._moment - time.monotonic())

    def passed(self) -> bool:
        """Return whether the deadline has passed."""
        return time.monotonic() >= self._moment


class Countdown(Deadline):
    """A deadline that starts only when another thread calls `start`; until then, the time left is infinite."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, math.inf)

    def start(self) -> None:
        """Start the time limit now."""
        self._moment = time.monotonic() + self.seconds

    def cancel(self) -> None:
        """End the time limit now, so that nothing waits any longer."""
        self._moment = -math.inf


Json = dict[str, Any]

# Receives one line for the user on the present work.
Progress = Callable[[str], None]
