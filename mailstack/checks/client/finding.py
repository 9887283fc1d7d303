"""The verdict on a setting, and the commands that change one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

RELOAD = "sudo postfix reload"


@dataclass(frozen=True, slots=True)
class Finding:
    """A value in effect; why it is wrong, and what to do; or, where it is right but not as in the course, why."""

    value: str
    problem: str = ""  # "" if it is right
    remedy: str = ""
    note: str = ""


def setting(*settings: str) -> str:
    """Return the command line, for the sender, that gives Postfix these `name = value` and has it read them."""
    return "; ".join([*(f"sudo postconf {shlex.quote(each)}" for each in settings), RELOAD])
