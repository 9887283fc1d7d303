"""Verdicts on the names of the machine, on what it delivers itself, and on whose mail it takes."""

from __future__ import annotations

import ipaddress
import re

from mailstack.checks.client.facts import Facts
from mailstack.checks.client.finding import Finding, setting


def mailname(facts: Facts) -> Finding:
    """Judge what comes after the @ of the machine's users."""
    value = facts.setting("myorigin")
    shown = f"{value} ({facts.origin})" if value.startswith("/") else value
    if facts.origin == facts.mailname:
        return Finding(shown)
    problem = (
        f"mail of this machine comes from {facts.student.partition('@')[0]}@{facts.origin or '?'}, but the system mail "
        f"name is {facts.mailname}: the provider knows no such sender, and no answer finds back"
    )
    return Finding(shown, problem, setting(f"myorigin = {facts.mailname}"))


def mydestination(facts: Facts) -> Finding:
    """Judge what the machine delivers to itself: no domain of the lab's mailboxes."""
    value = facts.setting("mydestination")
    names = [name for name in re.split(r"[,\s]+", value) if name]
    kept = [name for name in names if name in facts.domains]
    if not kept:
        return Finding(value)
    rest = ", ".join(dict.fromkeys(name for name in names if name not in kept))
    problem = f"mail for {', '.join(kept)} stays on this machine, and never gets to the provider's mailboxes"
    return Finding(value, problem, setting(f"mydestination = {rest or 'localhost'}"))


def mynetworks(facts: Facts) -> Finding:
    """Judge who may send mail through the machine without a password: nobody but itself."""
    value = facts.setting("mynetworks")
    open_to = [entry for entry in re.split(r"[,\s]+", value) if entry and not _is_own(entry, facts.addresses)]
    if not open_to:
        return Finding(value)
    problem = (
        f"{', '.join(open_to)}: hosts there may send mail to the whole world through this machine without a password "
        "(an open relay)"
    )
    return Finding(value, problem, setting("mynetworks = 127.0.0.0/8"))


# 127.0.0.0/8 as IPv6, which Debian's main.cf has (RFC 4291, section 2.5.5.2).
_MAPPED_LOOPBACK = ipaddress.ip_network("::ffff:127.0.0.0/104")


def _is_own(entry: str, addresses: tuple[str, ...]) -> bool:
    """Whether an entry of mynetworks is the machine itself, an exclusion, or a file that lists networks."""
    if entry.startswith(("!", "/")):
        return True
    if re.match(r"[a-z]+:", entry) and not entry.startswith("static:"):
        return True  # a table
    try:
        network = ipaddress.ip_network(re.sub(r"[\[\]]", "", entry), strict=False)
    except ValueError:
        return False
    if network.is_loopback or network == _MAPPED_LOOPBACK:
        return True
    return network.num_addresses == 1 and str(network.network_address) in addresses
