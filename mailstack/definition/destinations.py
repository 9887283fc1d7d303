"""Resolve the destinations of a mail address in a lab."""

from __future__ import annotations

from mailstack.model import Lab


def mailboxes(lab: Lab, address: str) -> set[str]:
    """Return the accounts that receive a mail to `address`; follow aliases, `+` addresses and catch-alls."""
    return of(lab, address)[0]


def of(lab: Lab, address: str) -> tuple[set[str], set[str]]:
    """Return the accounts that receive a mail to `address`, and its destinations without a mailbox in the lab."""
    aliases = {alias.address: alias.targets for alias in lab.aliases}
    accounts = set(lab.addresses())
    catch_alls = {domain.name: domain.catch_all for domain in lab.domains if domain.catch_all}
    receivers, others, pending, seen = set(), set(), [address.lower()], set()
    while pending:
        current = pending.pop()
        local, _, domain = current.rpartition("@")
        plain = f"{local.partition('+')[0]}@{domain}"
        if current in seen:
            continue
        seen.add(current)
        if plain in accounts:
            receivers.add(plain)
        elif plain in aliases:
            pending.extend(aliases[plain])
        elif catch_all := catch_alls.get(domain):
            pending.append(catch_all)
        else:
            others.add(current)
    return receivers, others
