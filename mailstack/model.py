"""The nouns, as frozen data. Nothing here reads a file, opens a socket or starts a process."""

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


@dataclass(frozen=True, slots=True)
class Port:
    """One published port: its name in `--json`, the role of the service behind it, and the port inside it."""

    name: str
    role: Role
    number: int
    variable: str  # what compose/lab.yaml takes the host's port number from

    @property
    def service(self) -> str:
        """The service behind it in compose/lab.yaml."""
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
    """A network of the engine's."""

    name: str
    labels: Mapping[str, str]
    subnets: tuple[str, ...]  # as the engine writes them: 172.17.0.0/16


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a client reaches a service."""

    host: str
    port: int
    lab: str = field(default="", compare=False)  # the lab that it belongs to, for messages
    target: str = field(default="", compare=False)  # the host over SSH that the lab is on, for messages


@dataclass(frozen=True, slots=True)
class Domain:
    """A mail domain of the lab; mail for unknown users goes to `catch_all`, if there is one."""

    name: str
    catch_all: str | None = None


# The quota of an account whose mailbox may hold whatever comes: Dovecot need not count what is in it.
UNLIMITED = 0


@dataclass(frozen=True, slots=True)
class Account:
    """A mailbox with a password."""

    address: str
    quota: int | None = None  # bytes, or UNLIMITED; None is the lab's `mailbox_quota`


@dataclass(frozen=True, slots=True)
class Alias:
    """An address whose mail goes to others."""

    address: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the servers refuse beyond."""

    message_size: int = 10 * 1024**2  # bytes
    mailbox_quota: int = 100 * 1024**2  # bytes


@dataclass(frozen=True, slots=True)
class Relay:
    """The provider's submission service, as the sender reaches it."""

    host: str
    port: int = 587


@dataclass(frozen=True, slots=True)
class Settings:
    """Lines of the servers' own languages that an overlay adds, after and above the lab's."""

    postfix: Mapping[str, str] = field(default_factory=dict)
    sender: Mapping[str, str] = field(default_factory=dict)
    dovecot: str = ""


@dataclass(frozen=True, slots=True)
class Lab:
    """What a lab serves: the `x-mailstack` block of its compose files, checked; and its services by their roles."""

    mailname: str
    domains: tuple[Domain, ...]
    accounts: tuple[Account, ...]
    aliases: tuple[Alias, ...] = ()
    limits: Limits = Limits()
    relay: Relay | None = None  # None: the provider in the lab
    settings: Settings = Settings()
    services: tuple[Service, ...] = ()  # see `roles.in_order`

    def names(self, role: Role) -> list[str]:
        """The services of a role, in their order."""
        return [service.name for service in self.services if service.role and service.role.is_a(role)]

    def name(self, role: Role) -> str:
        """The service of a role that one service has."""
        return next(iter(self.names(role)), STANDARD[role])

    def addresses(self) -> list[str]:
        """The accounts' addresses, in the order in which Compose gives them: the alphabet's."""
        return [account.address for account in self.accounts]

    def owned_by(self, address: str) -> list[str]:
        """The aliases that lead straight to `address`, so that it may send as them."""
        return [alias.address for alias in self.aliases if address in alias.targets]


@dataclass(frozen=True, slots=True)
class Command:
    """A command as a value: what to run, never how or where. Secrets go in by `input` alone."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of the runner's own
    input: bytes | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check's verdict with what it was computed from."""

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


class Deadline:
    """A moment (of the monotonic clock) by which something must have happened, and how long that was, in seconds."""

    def __init__(self, seconds: float, moment: float) -> None:
        self.seconds = seconds
        self._moment = moment

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline `seconds` from now."""
        return Deadline(seconds, time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left; 0 once it has passed."""
        return max(0.0, self._moment - time.monotonic())

    def passed(self) -> bool:
        """Whether the moment has come."""
        return time.monotonic() >= self._moment


class Countdown(Deadline):
    """A deadline whose time does not run until another thread starts it: before that, there is all the time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, math.inf)

    def start(self) -> None:
        """From now on, the time runs."""
        self._moment = time.monotonic() + self.seconds

    def cancel(self) -> None:
        """The time is over: nothing is waited for any longer."""
        self._moment = -math.inf


Json = dict[str, Any]

# Takes one line for people about what is being done.
Progress = Callable[[str], None]
