"""Verdicts on the machine itself: its configuration can be read, Postfix runs; and on what only the course asks for."""

from __future__ import annotations

import re

from mailstack.checks.client.facts import Facts
from mailstack.checks.client.finding import RELOAD, Finding, setting


def main_cf(facts: Facts) -> Finding:
    """Judge whether Postfix can read its configuration, and knows every parameter in it."""
    if facts.error:
        place = re.search(r"(\S+/\w+\.cf)(?:, line (\d+))?", facts.error)
        file, line = (place[1], place[2]) if place else ("/etc/postfix/main.cf", None)
        where = f"+{line} {file}" if line else file
        problem = f"Postfix cannot read its configuration: {facts.error}"
        remedy = f"correct the line (`name = value`): sudo nano {where}; then sudo service postfix restart"
        return Finding("cannot be read", problem, remedy)
    if facts.unused:
        names = ", ".join(name.partition("=")[0] for name in facts.unused)
        return Finding("can be read", note=f"Postfix does not know {names}: a misspelt name?")
    return Finding("can be read")


def service(facts: Facts) -> Finding:
    """Judge whether Postfix runs."""
    if facts.running and facts.unread:
        problem = f"{facts.unread} was changed after Postfix had read it: not all of it is in effect"
        return Finding("running", problem, RELOAD)
    if facts.running:
        return Finding("running")
    remedy = "sudo service postfix start"
    if facts.error:
        remedy = f"correct its configuration first, then {remedy}"
    return Finding("stopped", "Postfix is stopped: mail stays in the queue of this machine", remedy)


def readme_directory(facts: Facts) -> Finding:
    """Judge readme_directory, which no mail depends on."""
    value = facts.setting("readme_directory")
    if value == "no":
        return Finding(value)
    return Finding(value, "the course sets it to “no”; no mail depends on it", setting("readme_directory = no"))
