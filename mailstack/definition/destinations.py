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
    found, others, waiting, seen = set(), set(), [address.lower()], set()
    while waiting:
        each = waiting.pop()
        local, _, domain = each.rpartition("@")
        plain = f"{local.partition('+')[0]}@{domain}"
        if each in seen:
            continue
        seen.add(each)
        if plain in accounts:
            found.add(plain)
        elif plain in aliases:
            waiting.extend(aliases[plain])
        elif catch_all := catch_alls.get(domain):
            waiting.append(catch_all)
        else:
            others.add(each)
    return found, others
