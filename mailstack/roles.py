"""What a service is in a lab: its role, by its label `mailstack.role`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

LABEL = "mailstack.role"


class Role(StrEnum):
    """What a service does; services are listed in this order."""

    SUBMISSION = "submission"  # the provider's MTA: takes users' mail (587, 465), and mail for the lab's domains (25)
    STORE = "store"  # the mailboxes, over IMAP and POP3, and the passwords
    SENDER = "sender"  # the student's machine: `mail`, and an MTA that relays through the provider
    MTA = "mta"  # any other Postfix

    def is_a(self, role: Role) -> bool:
        """Return whether a service of this role is one of `role`, too: submission and sender are MTAs."""
        return self is role or (role is Role.MTA and self is not Role.STORE)


# A lab has exactly one service of each of these; their names in compose/lab.yaml.
STANDARD: Mapping[Role, str] = {Role.SUBMISSION: "postfix", Role.STORE: "dovecot", Role.SENDER: "sender"}


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a definition."""

    name: str
    role: Role | None = None
    files: tuple[str, ...] = ()  # the secrets and configs it is handed, by their names in the compose files

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Service:
        """The other way round of `dataclasses.asdict`. Raises KeyError, TypeError, ValueError."""
        return cls(str(data["name"]), Role(data["role"]) if data["role"] else None, tuple(map(str, data["files"])))


def of_labels(labels: Mapping[str, str] | None) -> Role | None:
    """Return the role that a container's labels give it; None for none, and for one that is not known."""
    text = (labels or {}).get(LABEL, "")
    return Role(text) if text in set(Role) else None


def in_order(services: Iterable[Service]) -> tuple[Service, ...]:
    """Sort services by role, those without one last, then by name."""
    ranks: dict[Role | None, int] = {role: rank for rank, role in enumerate((*Role, None))}
    return tuple(sorted(services, key=lambda service: (ranks[service.role], service.name)))
