"""The credentials of a running lab: given out one at a time, and rotated."""

from __future__ import annotations

from collections.abc import Callable

from mailstack import files
from mailstack.engine import Engine
from mailstack.errors import HostError, InputError
from mailstack.model import Deadline
from mailstack.running import RunningLab
from mailstack.secret import Secret


def of(lab: RunningLab, account: str) -> tuple[str, Secret]:
    """The user and the password of an account, or of `relay`. Raises InputError when there is no such account."""
    if account == "relay":
        relay = files.read_relay(lab.directory.files)
        if relay is None:
            raise InputError(f"lab “{lab.name}” has no relay credentials", remedy=f"mailstack up -n {lab.name}")
        return relay
    return account.lower(), lab.password(account)


def hand_to_sender(engine: Engine, container: str, line: str) -> None:
    """Make the sender's map of relay credentials anew from `user:password`, given by standard input."""
    result = engine.execute(container, ["relay-credentials"], input=line.encode())
    if result.code != 0:
        raise HostError("the sender did not take the relay's credentials", details=result.stderr.strip())


def rotate(lab: RunningLab, progress: Callable[[str], None]) -> str:
    """Another password for the relay in the lab: Dovecot reads it at the next log-in, the sender has it at once.

    Gives the user's name. Raises InputError where the relay is outside: its password is its provider's to change.
    """
    if lab.state.relay:
        raise InputError(
            f"lab “{lab.name}” relays through {lab.state.relay}, outside: its password is changed there",
            remedy="change it there, then `mailstack up` with a new --relay-credentials FILE",
        )
    sender = lab.service("sender").container
    with lab.directory.locked(Deadline.after(60), lambda: progress("waiting for another command on this lab")):
        user, password = files.rotate_relay(lab.directory.files)
        hand_to_sender(lab.engine, sender, f"{user}:{password.reveal()}\n")
    return user
