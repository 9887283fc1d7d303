"""Whatever is wrong with what a user gives: one message that names the place, code 2 or 3, and nothing left behind.

Every eighth command runs as a process of its own, the others in this one, through the same entry point.
"""

from __future__ import annotations

import secrets

RUN = secrets.token_hex(3)  # in the names of labs: another run may be at work on the same engine


def with_name(command: tuple[str, ...], name: str) -> tuple[str, ...]:
    """A command line, about the lab of this name."""
    at = 2 if command[0] == "secrets" else 1
    return (*command[:at], "-n", name, *command[at:])
