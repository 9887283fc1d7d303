"""The credentials of a running lab: read one at a time, and rotated."""

from __future__ import annotations

import smtplib
import ssl
import time
from collections.abc import Callable

from mailstack.config import files
from mailstack.engine.engine import Engine
from mailstack.errors import DeadlinePassed, HostError, InputError
from mailstack.lab import finishing
from mailstack.lab.changes import changing
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from mailstack.protocol import smtp, trust
from mailstack.roles import Role
from mailstack.secret import Secret


def of(lab: RunningLab, account: str) -> tuple[str, Secret]:
    """Return the user and the password of an account, or of `relay`. Raises InputError if there is no such account."""
    if account == "relay":
        relay = files.read_relay(lab.directory.files)
        if relay is None:
            raise InputError(f"lab “{lab.name}” has no relay credentials", remedy=lab.line("up"))
        return relay
    return account.lower(), lab.password(account)


def hand_to_sender(engine: Engine, container: str, line: str) -> None:
    """Rebuild the sender's map of relay credentials from `user:password`, passed on standard input."""
    result = engine.execute(container, ["relay-credentials"], input=line.encode())
    if result.code != 0:
        raise HostError("the sender did not accept the relay's credentials", details=result.stderr.strip())


def rotate(lab: RunningLab, progress: Callable[[str], None]) -> str:
    """Give the lab's relay a new password and return the user. The new one is valid on return, the old one is not.

    Raises InputError if the relay is outside the lab: only its provider can change that password.
    """
    if lab.state.relay:
        raise InputError(
            f"lab “{lab.name}” relays through {lab.state.relay}, outside: its password is changed there",
            remedy=f"change it there, then `{lab.line('up')}` with a new --relay-credentials FILE",
        )
    finishing.finish(lab, progress)
    sender, *_ = (lab.one(role).container for role in (Role.SENDER, Role.SUBMISSION, Role.STORE))
    with lab.locked(progress), changing(lab.directory.path, "secrets rotate"):
        user, password = files.rotate_relay(lab.directory.files)
        lab.target.hand_over(lab.directory.files, ["relay"])
        await_password(lab, user, password)
        if not lab.defined.blank:
            hand_to_sender(lab.engine, sender, f"{user}:{password.reveal()}\n")
    return user


_HOLDS_SECONDS = 15.0


def await_password(lab: RunningLab, user: str, password: Secret, *, holds: bool = True) -> None:
    """Log in until the password is accepted, or with `holds=False` until it is refused. Raises DeadlinePassed.

    Dovecot checks a passwd-file for changes once per clock second.
    """
    deadline = Deadline.after(_HOLDS_SECONDS)
    context = trust.tls_context(lab.ca_file)
    while _logs_in(lab, context, user, password) is not holds:
        if deadline.passed():
            what = "the new password was not accepted" if holds else "the old password was still accepted"
            raise DeadlinePassed(f"{what} for {user} after {deadline.seconds:g} s")
        time.sleep(1.0 - time.time() % 1.0)  # wait for the next clock second: no change before


def _logs_in(lab: RunningLab, context: ssl.SSLContext, user: str, password: Secret) -> bool:
    dial = smtp.dial_to(lab.endpoints["submission"])
    try:
        with smtp.Smtp(dial, name="localhost", tls="starttls", context=context) as session:
            session.login(user, password.reveal())
    except (smtplib.SMTPException, OSError):
        return False
    return True
