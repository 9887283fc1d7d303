"""The roles of services in a lab, from the label `mailstack.role`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

LABEL = "mailstack.role"


class Role(StrEnum):
    """The role of a service; services are listed in this order."""

    SUBMISSION = "submission"  # the provider's MTA: submission (587, 465), and mail for the lab's domains (25)
    STORE = "store"  # the mailboxes, over IMAP and POP3, and the passwords
    SENDER = "sender"  # the student's machine: `mail`, and an MTA that relays through the provider
    MTA = "mta"  # any other Postfix

    def is_a(self, role: Role) -> bool:
        """Return whether this role is `role`, or a kind of it: submission and sender are also MTAs."""
        return self is role or (role is Role.MTA and self is not Role.STORE)


# A lab has exactly one service of each of these; their names in compose/lab.yaml.
STANDARD: Mapping[Role, str] = {Role.SUBMISSION: "postfix", Role.STORE: "dovecot", Role.SENDER: "sender"}


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a definition."""

    name: str
    role: Role | None = None
    files: tuple[str, ...] = ()  # names of its secrets and configs in the compose files
    networks: tuple[str, ...] = ()  # their names on the engine

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Service:
        """Return the service from its `dataclasses.asdict`. Raises KeyError, TypeError, ValueError."""
        role = Role(data["role"]) if data["role"] else None
        networks = data.get("networks", ())  # an older version did not record them
        return cls(str(data["name"]), role, tuple(map(str, data["files"])), tuple(map(str, networks)))


def of_labels(labels: Mapping[str, str] | None) -> Role | None:
    """Return the role in a container's labels; None when there is none or an unknown one."""
    text = (labels or {}).get(LABEL, "")
    return Role(text) if text in set(Role) else None


def in_order(services: Iterable[Service]) -> tuple[Service, ...]:
    """Sort services by role, those without one last, then by name."""
    ranks: dict[Role | None, int] = {role: rank for rank, role in enumerate((*Role, None))}
    return tuple(sorted(services, key=lambda service: (ranks[service.role], service.name)))
