"""Check the `x-mailstack` block and the services of resolved compose files, and return them as a Lab.

Compose resolves the files (overlays, interpolation, merging); `parse` reads the result. A Misfit names the keys of a
mistake; locate.py finds their place in the original files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mailstack import roles
from mailstack.model import Account, Alias, Domain, Json, Lab, Limits, Relay, Settings
from mailstack.text.addresses import NO_ADDRESS, NO_DOMAIN, address_flaw, domain_flaw, is_host

BLOCK = "x-mailstack"

Keys = tuple[str | int, ...]

_SIZE = re.compile(r"([0-9]{1,15})\s*([kmg])?i?b?", re.IGNORECASE)
_PORT = re.compile(r"[0-9]{1,5}")
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SETTING = re.compile(r"[a-z0-9_]+|[a-z0-9.:]+/[a-z-]+/[a-z0-9_]+")


class InvalidDefinition(Exception):
    """A mistake in the document: its keys, from the root, and a message with the expected value."""

    def __init__(self, keys: Keys, message: str) -> None:
        super().__init__(message)
        self.keys = keys
        self.message = message


def parse(document: Json) -> Lab:
    """Return the Lab in a resolved compose document. Raises Misfit."""
    root: Keys = (BLOCK,)
    if BLOCK not in document:
        raise InvalidDefinition((), f"has no `{BLOCK}` block")
    known_keys = ("mailname", "domains", "accounts", "aliases", "limits", "relay", "blank", "settings")
    block = _mapping(document[BLOCK], root, known_keys)

    domains = _domains(block.get("domains"), (*root, "domains"))
    names = {domain.name for domain in domains}
    accounts = _accounts(block.get("accounts"), (*root, "accounts"), names)
    addresses = {account.address for account in accounts}
    aliases = _aliases(block.get("aliases"), (*root, "aliases"), names, addresses)
    known = addresses | {alias.address for alias in aliases}
    for domain in domains:
        if domain.catch_all and domain.catch_all not in known:
            keys = (*root, "domains", domain.name, "catch_all")
            raise InvalidDefinition(keys, f"{domain.catch_all} is neither an account nor an alias of this lab")
    mailname = _domain_name(block.get("mailname", domains[0].name), (*root, "mailname"))
    if mailname not in names:
        raise InvalidDefinition(
            (*root, "mailname"), f"{mailname} is not one of the lab's domains ({', '.join(sorted(names))})"
        )
    return Lab(
        mailname=mailname,
        domains=domains,
        accounts=accounts,
        aliases=aliases,
        limits=_limits(block.get("limits"), (*root, "limits")),
        relay=_relay(block.get("relay"), (*root, "relay")),
        settings=_settings(block.get("settings"), (*root, "settings")),
        services=services(document),
        blank=_yes_or_no(block.get("blank"), (*root, "blank")),
    )


def services(document: Json) -> tuple[roles.Service, ...]:
    """Return the services in a resolved compose document. Raises Misfit for an unknown role."""
    services_defined = []
    named = {key: (network or {}).get("name", key) for key, network in (document.get("networks") or {}).items()}
    for name, service in (document.get("services") or {}).items():
        labels = service.get("labels") or {}
        role, given = roles.of_labels(labels), labels.get(roles.LABEL)
        if given and not role:
            message = f"{_shown(given)} is not a role; roles are {', '.join(roles.Role)}"
            raise InvalidDefinition(("services", name, "labels", roles.LABEL), message)
        mounted = [each for kind in ("configs", "secrets") for each in service.get(kind) or ()]
        files = tuple(each if isinstance(each, str) else each["source"] for each in mounted)
        networks = tuple(named.get(key, key) for key in service.get("networks") or ())
        services_defined.append(roles.Service(name, role, files, networks))
    return roles.in_order(services_defined)


def _domains(value: Any, keys: Keys) -> tuple[Domain, ...]:
    domains: dict[str, Domain] = {}
    for name, options in _mapping(value, keys).items():
        here = (*keys, name)
        given = _mapping(options, here, ("catch_all",))
        target = given.get("catch_all")
        domain = Domain(_domain_name(name, here), None if target is None else _address(target, (*here, "catch_all")))
        _refuse_duplicate(domain.name, domains, here)
        domains[domain.name] = domain
    if not domains:
        raise InvalidDefinition(keys, "needs at least one domain")
    return tuple(domains.values())


def _accounts(value: Any, keys: Keys, domains: set[str]) -> tuple[Account, ...]:
    accounts: dict[str, Account] = {}
    for name, options in _mapping(value, keys).items():
        here = (*keys, name)
        given = _mapping(options, here, ("quota",))
        address = _local_address(name, here, domains)
        _refuse_duplicate(address, accounts, here)
        accounts[address] = Account(address, _size(given["quota"], (*here, "quota")) if "quota" in given else None)
    if not accounts:
        raise InvalidDefinition(keys, "needs at least one account")
    return tuple(accounts.values())


def _aliases(value: Any, keys: Keys, domains: set[str], accounts: set[str]) -> tuple[Alias, ...]:
    aliases: list[Alias] = []
    places: dict[str, Keys] = {}
    for name, targets in _mapping(value, keys).items():
        here = (*keys, name)
        address = _local_address(name, here, domains)
        if address in accounts:
            raise InvalidDefinition(here, f"{address} is an account already")
        _refuse_duplicate(address, places, here)
        addresses = [targets] if isinstance(targets, str) else targets
        if not isinstance(addresses, list) or not addresses:
            raise InvalidDefinition(here, f"should be a list of addresses, not {_kind(targets)}")
        aliases.append(Alias(address, tuple(_address(target, (*here, n)) for n, target in enumerate(addresses))))
        places[address] = here
    for alias in aliases:
        for number, target in enumerate(alias.targets):
            if target not in accounts and target not in places:
                here = (*places[alias.address], number)
                raise InvalidDefinition(here, f"{target} is neither an account nor an alias of this lab")
    targets_of = {alias.address: alias.targets for alias in aliases}
    for alias in aliases:
        if (cycle := _cycle(alias.address, targets_of)) is not None:
            raise InvalidDefinition(places[alias.address], f"leads back to itself: {' → '.join(cycle)}")
    return tuple(aliases)


def _cycle(address: str, targets_of: Mapping[str, Sequence[str]]) -> list[str] | None:
    """Return the chain of aliases from `address` back to itself; None when there is no such cycle."""
    paths, seen = [[address]], set()
    while paths:
        path = paths.pop()
        for target in targets_of.get(path[-1], ()):
            if target == address:
                return [*path, target]
            if target not in seen:
                seen.add(target)
                paths.append([*path, target])
    return None


def _limits(value: Any, keys: Keys) -> Limits:
    given = _mapping(value, keys, ("message_size", "mailbox_quota"))
    sizes = {name: _size(size, (*keys, name)) for name, size in given.items()}
    limits = Limits(**sizes)
    if limits.message_size > limits.mailbox_quota:
        raise InvalidDefinition(keys, "message_size is larger than mailbox_quota")
    return limits


def _relay(value: Any, keys: Keys) -> Relay | None:
    if value is None:
        return None
    given = _mapping(value, keys, ("host", "port"))
    host = given.get("host")
    if not isinstance(host, str) or not is_host(host):
        raise InvalidDefinition((*keys, "host"), "should be the name or the IPv4 address of the relay")
    port = str(given.get("port", 587))
    if (number := port_number(port)) is None:
        raise InvalidDefinition(
            (*keys, "port"), f"should be a port number from 1 to 65535, not {_shown(given['port'])}"
        )
    return Relay(host, number)


def _settings(value: Any, keys: Keys) -> Settings:
    given = _mapping(value, keys, ("postfix", "sender", "dovecot"))
    lines: dict[str, Mapping[str, str]] = {}
    for service in ("postfix", "sender"):
        here = (*keys, service)
        checked = {}
        for name, setting in _mapping(given.get(service), here).items():
            if not _SETTING.fullmatch(name):
                raise InvalidDefinition(
                    (*here, name), "should be a Postfix setting: `name`, or `service/type/name` for master.cf"
                )
            checked[name] = _scalar(setting, (*here, name))
            if "/" in name and " " in checked[name]:
                raise InvalidDefinition(
                    (*here, name), "should have no spaces: master.cf's settings take none; use commas"
                )
        lines[service] = checked
    dovecot = given.get("dovecot") or ""
    if not isinstance(dovecot, str):
        raise InvalidDefinition(
            (*keys, "dovecot"), f"should be text in Dovecot's configuration language, not {_kind(dovecot)}"
        )
    return Settings(lines["postfix"], lines["sender"], dovecot)


# ── the shapes of values ───────────────────────────────────────────────────────────────────────────────────────────


def _kind(value: Any) -> str:
    kinds = {type(None): "nothing", bool: "yes or no", int: "a number", float: "a number", str: "text", list: "a list"}
    return kinds.get(type(value), "a mapping")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _mapping(value: Any, keys: Keys, known: Sequence[str] | None = None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidDefinition(keys, f"should be a mapping, not {_kind(value)}")
    for key in value:
        if known is not None and key not in known:
            raise InvalidDefinition((*keys, key), f"is not allowed here; allowed are {', '.join(known)}")
    return value


def _yes_or_no(value: Any, keys: Keys) -> bool:
    if not isinstance(value, bool | None):
        raise InvalidDefinition(keys, f"should be true or false, not {_shown(value)}")
    return bool(value)


def _scalar(value: Any, keys: Keys) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise InvalidDefinition(keys, f"should be one line of text, not {_kind(value)}")
    if len(str(value).splitlines()) > 1:
        raise InvalidDefinition(keys, "should be one line of text, not several")
    return str(value)


def _size(value: Any, keys: Keys) -> int:
    fits = isinstance(value, str | int) and not isinstance(value, bool)
    size = to_bytes(str(value)) if fits else None
    if size is None:
        raise InvalidDefinition(keys, f"should be a size from 1K to 1024G, like 10M, not {_shown(value)}")
    return size


def to_bytes(text: str) -> int | None:
    """Return a size like `10M` in bytes, with units of 1024; None unless it is a size from 1K to 1024G."""
    match = _SIZE.fullmatch(text.strip())
    size = int(match[1]) * _UNITS[(match[2] or "").lower()] if match else 0
    return size if 1024 <= size <= 2**40 else None


def port_number(text: str) -> int | None:
    """Return the port number in `text`, from 1 to 65535; None when it is none."""
    return int(text) if _PORT.fullmatch(text) and 0 < int(text) < 65536 else None


def _domain_name(value: Any, keys: Keys) -> str:
    flaw = domain_flaw(value.lower()) if isinstance(value, str) else NO_DOMAIN
    if flaw:
        why = "" if flaw == NO_DOMAIN else f": it {flaw}"
        raise InvalidDefinition(keys, f"should be a domain like example.com, not {_shown(value)}{why}")
    return str(value).lower()


def _address(value: Any, keys: Keys) -> str:
    flaw = address_flaw(value) if isinstance(value, str) else NO_ADDRESS
    if flaw:
        why = "" if flaw == NO_ADDRESS else f": it {flaw}"
        raise InvalidDefinition(keys, f"should be an address like alice@example.com, not {_shown(value)}{why}")
    return str(value).lower()


def _local_address(value: Any, keys: Keys, domains: set[str]) -> str:
    address = _address(value, keys)
    if (domain := address.partition("@")[2]) not in domains:
        raise InvalidDefinition(keys, f"{domain} is not one of the lab's domains ({', '.join(sorted(domains))})")
    return address


def _refuse_duplicate(name: str, known: Collection[str], keys: Keys) -> None:
    if name in known:
        raise InvalidDefinition(keys, "is a duplicate: upper and lower case are the same")
