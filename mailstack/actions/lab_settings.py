"""Settings in effect on the machines of a lab, as its servers tell them."""

from __future__ import annotations

from mailstack.errors import MailstackError
from mailstack.lab.request import Request
from mailstack.lab.running import RunningLab


def in_effect(lab: RunningLab, machine: str, setting: str) -> str | None:
    """Return the value of a Postfix setting; None if the machine does not run or does not know it."""
    return output(lab, machine, ["postconf", "-h", setting])


def up_line(lab: RunningLab, *overlays: str) -> str:
    """Return the command line that brings a lab up again with its overlays, and with further ones."""
    own = [str(path) for path in Request.of(lab.state).overlays]
    return lab.line("up", *[word for path in (*own, *overlays) for word in ("-f", path)])


def output(lab: RunningLab, machine: str, command: list[str]) -> str | None:
    """Return what a command prints on a machine, without secrets; None if it fails or the machine does not run."""
    containers = {service.name: service.container for service in lab.services() if service.state == "running"}
    if machine not in containers:
        return None
    try:
        result = lab.engine.execute(containers[machine], command)
    except MailstackError:
        return None
    return lab.blotter().clean(result.stdout.strip()) if result.code == 0 else None
