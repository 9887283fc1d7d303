"""The `x-mailstack` block of resolved compose files, checked and turned into a Lab.

Compose resolves the files (overlays, interpolation, merging); `parse` reads the result. Where something is wrong,
the message opens with file:line:col, found in the files as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mailstack.errors import LabFileError
from mailstack.model import Account, Alias, Domain, Json, Lab, Limits, Relay, Settings

BLOCK = "x-mailstack"

Keys = tuple[str | int, ...]

# RFC 5321, section 4.1.2: the dot-string form, without `+`, which the lab's servers take as a delimiter.
_LOCAL = re.compile(r"[a-z0-9!#$%&'*/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*/=?^_`{|}~-]+)*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SIZE = re.compile(r"(\d+)\s*([kmg])?i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SETTING = re.compile(r"[a-z0-9_]+|[a-z0-9.:]+/[a-z-]+/[a-z0-9_]+")


class Misfit(Exception):
    """Something in the block does not fit: where (keys from the document's root) and what was expected."""

    def __init__(self, keys: Keys, message: str) -> None:
        super().__init__(message)
        self.keys = keys
        self.message = message


def parse(document: Json) -> Lab:
    """The Lab in a resolved compose document. Raises Misfit."""
    root: Keys = (BLOCK,)
    if BLOCK not in document:
        raise Misfit((), f"has no `{BLOCK}` block")
    block = _mapping(
        document[BLOCK], root, ("mailname", "domains", "accounts", "aliases", "limits", "relay", "settings")
    )

    domains = _domains(block.get("domains"), (*root, "domains"))
    names = {domain.name for domain in domains}
    accounts = _accounts(block.get("accounts"), (*root, "accounts"), names)
    addresses = {account.address for account in accounts}
    aliases = _aliases(block.get("aliases"), (*root, "aliases"), names, addresses)
    known = addresses | {alias.address for alias in aliases}
    for domain in domains:
        if domain.catch_all and domain.catch_all not in known:
            keys = (*root, "domains", domain.name, "catch_all")
            raise Misfit(keys, f"{domain.catch_all} is neither an account nor an alias of this lab")
    mailname = _domain_name(block.get("mailname", domains[0].name), (*root, "mailname"))
    if mailname not in names:
        raise Misfit((*root, "mailname"), f"{mailname} is not one of the lab's domains ({', '.join(sorted(names))})")
    return Lab(
        mailname=mailname,
        domains=domains,
        accounts=accounts,
        aliases=aliases,
        limits=_limits(block.get("limits"), (*root, "limits")),
        relay=_relay(block.get("relay"), (*root, "relay")),
        settings=_settings(block.get("settings"), (*root, "settings")),
    )


def _domains(value: Any, keys: Keys) -> tuple[Domain, ...]:
    found = []
    for name, options in _mapping(value, keys).items():
        here = (*keys, name)
        given = _mapping(options, here, ("catch_all",))
        target = given.get("catch_all")
        found.append(Domain(_domain_name(name, here), _address(target, (*here, "catch_all")) if target else None))
    if not found:
        raise Misfit(keys, "needs at least one domain")
    return tuple(_unique(found, keys, lambda domain: domain.name))


def _accounts(value: Any, keys: Keys, domains: set[str]) -> tuple[Account, ...]:
    found = []
    for name, options in _mapping(value, keys).items():
        here = (*keys, name)
        given = _mapping(options, here, ("quota",))
        address = _local_address(name, here, domains)
        found.append(Account(address, _size(given["quota"], (*here, "quota")) if "quota" in given else None))
    if not found:
        raise Misfit(keys, "needs at least one account")
    return tuple(_unique(found, keys, lambda account: account.address))


def _aliases(value: Any, keys: Keys, domains: set[str], accounts: set[str]) -> tuple[Alias, ...]:
    found = []
    for name, targets in _mapping(value, keys).items():
        here = (*keys, name)
        address = _local_address(name, here, domains)
        if address in accounts:
            raise Misfit(here, f"{address} is an account already")
        several = [targets] if isinstance(targets, str) else targets
        if not isinstance(several, list) or not several:
            raise Misfit(here, f"should be a list of addresses, not {_kind(targets)}")
        found.append(Alias(address, tuple(_address(target, (*here, n)) for n, target in enumerate(several))))
    result = tuple(_unique(found, keys, lambda alias: alias.address))
    known = accounts | {alias.address for alias in result}
    for alias in result:
        for target in alias.targets:
            if target not in known:
                raise Misfit((*keys, alias.address), f"{target} is neither an account nor an alias of this lab")
    return result


def _limits(value: Any, keys: Keys) -> Limits:
    given = _mapping(value, keys, ("message_size", "mailbox_quota"))
    sizes = {name: _size(size, (*keys, name)) for name, size in given.items()}
    limits = Limits(**sizes)
    if limits.message_size > limits.mailbox_quota:
        raise Misfit((*keys, "message_size"), "is more than a mailbox may hold (mailbox_quota)")
    return limits


def _relay(value: Any, keys: Keys) -> Relay | None:
    if value is None:
        return None
    given = _mapping(value, keys, ("host", "port"))
    host = given.get("host")
    if not isinstance(host, str) or not is_host(host):
        raise Misfit((*keys, "host"), "should be the name or the IPv4 address of the relay")
    port = str(given.get("port", 587))
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise Misfit((*keys, "port"), f"should be a port number from 1 to 65535, not {port}")
    return Relay(host, int(port))


def _settings(value: Any, keys: Keys) -> Settings:
    given = _mapping(value, keys, ("postfix", "sender", "dovecot"))
    lines: dict[str, Mapping[str, str]] = {}
    for service in ("postfix", "sender"):
        here = (*keys, service)
        checked = {}
        for name, setting in _mapping(given.get(service), here).items():
            if not _SETTING.fullmatch(name):
                raise Misfit((*here, name), "should be a Postfix setting: `name`, or `service/type/name` for master.cf")
            checked[name] = _scalar(setting, (*here, name))
        lines[service] = checked
    dovecot = given.get("dovecot") or ""
    if not isinstance(dovecot, str):
        raise Misfit((*keys, "dovecot"), f"should be text in Dovecot's configuration language, not {_kind(dovecot)}")
    return Settings(lines["postfix"], lines["sender"], dovecot)


# ── the shapes of values ───────────────────────────────────────────────────────────────────────────────────────────


def _kind(value: Any) -> str:
    kinds = {type(None): "nothing", bool: "yes or no", int: "a number", float: "a number", str: "text", list: "a list"}
    return kinds.get(type(value), "a mapping")


def _mapping(value: Any, keys: Keys, known: Sequence[str] | None = None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Misfit(keys, f"should be a mapping, not {_kind(value)}")
    for key in value:
        if known is not None and key not in known:
            raise Misfit((*keys, key), f"is not known here; known are {', '.join(known)}")
    return value


def _scalar(value: Any, keys: Keys) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    if not isinstance(value, str | int | float) or "\n" in str(value):
        raise Misfit(keys, f"should be one line of text, not {_kind(value)}")
    return str(value)


def _size(value: Any, keys: Keys) -> int:
    match = (
        _SIZE.fullmatch(str(value).strip()) if isinstance(value, str | int) and not isinstance(value, bool) else None
    )
    size = int(match[1]) * _UNITS[(match[2] or "").lower()] if match else 0
    if not 1024 <= size <= 2**40:
        raise Misfit(keys, f"should be a size from 1K to 1024G, like 10M, not {value!r}")
    return size


def is_domain(name: str) -> bool:
    """Whether `name` can be a mail domain: two labels or more (RFC 1035, section 2.3.1)."""
    labels = name.split(".")
    return len(name) <= 253 and len(labels) >= 2 and all(_LABEL.fullmatch(label) for label in labels)


def is_host(name: str) -> bool:
    """Whether `name` can be a host: a name of one label or more, or an IPv4 address."""
    return 0 < len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.lower().split("."))


def is_address(text: str) -> bool:
    """Whether `text` can be a mail address (RFC 5321, section 4.1.2; ASCII, no quoted local part); `+` may be in it."""
    local, _, domain = text.lower().rpartition("@")
    return len(local) <= 64 and bool(_LOCAL.fullmatch(local.replace("+", "-"))) and is_domain(domain)


def _domain_name(value: Any, keys: Keys) -> str:
    name = str(value).lower()
    if not isinstance(value, str) or not is_domain(name):
        raise Misfit(keys, f"should be a domain like example.com, not {value!r}")
    return name


def _address(value: Any, keys: Keys) -> str:
    if not isinstance(value, str) or not is_address(value) or "+" in value:
        raise Misfit(keys, f"should be an address like alice@example.com, not {value!r}")
    return value.lower()


def _local_address(value: Any, keys: Keys, domains: set[str]) -> str:
    address = _address(value, keys)
    if (domain := address.partition("@")[2]) not in domains:
        raise Misfit(keys, f"{domain} is not one of the lab's domains ({', '.join(sorted(domains))})")
    return address


def _unique(found: list[Any], keys: Keys, name: Any) -> list[Any]:
    seen: set[str] = set()
    for item in found:
        if name(item) in seen:
            raise Misfit((*keys, name(item)), "is there twice, but for upper and lower case")
        seen.add(name(item))
    return found


# ── where it stands ────────────────────────────────────────────────────────────────────────────────────────────────


def broken_yaml(files: Sequence[Path]) -> LabFileError | None:
    """The first syntax error in `files`, with its place; None when all can be read as YAML."""
    import yaml

    for file in files:
        try:
            node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
            return LabFileError(f"{place}: not valid YAML: {error.problem}")
        except (yaml.YAMLError, UnicodeDecodeError):
            return LabFileError(f"{file}:1:1: not valid YAML: it has characters that cannot stand in a text file")
        if node is None:
            return LabFileError(f"{file}:1:1: there is nothing in it")
        if not isinstance(node, yaml.MappingNode):
            return LabFileError(f"{file}:1:1: should be a mapping, as in compose files")
    return None


def locate(keys: Keys, files: Sequence[Path]) -> str:
    """`file:line:col` of the deepest of `keys` that can be found, in the last of `files` that has the most of them."""
    import yaml

    best, place = -1, f"{files[-1]}:1:1"
    for file in files:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        depth, mark = 0, getattr(node, "start_mark", None)
        for key in keys:
            step = _child(node, key)
            if step is None:
                break
            depth, (mark, node) = depth + 1, step
        if mark is not None and depth >= best:
            best, place = depth, f"{file}:{mark.line + 1}:{mark.column + 1}"
    return place


def _child(node: Any, key: str | int) -> tuple[Any, Any] | None:
    import yaml

    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if str(getattr(name, "value", "")).lower() == str(key).lower():
                return name.start_mark, value
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark, node.value[key]
    return None


def explain_misfit(misfit: Misfit, files: Sequence[Path]) -> LabFileError:
    """A Misfit as an error with its place."""
    path = ".".join(str(key) for key in misfit.keys)
    return LabFileError(f"{locate(misfit.keys, files)}: {path + ': ' if path else ''}{misfit.message}")


def explain_compose(output: str, files: Sequence[Path]) -> LabFileError:
    """What Compose said of the files, with the place of the thing that it names, where it names one."""
    if (broken := broken_yaml(files)) is not None:
        return broken
    message = " ".join(line.strip() for line in output.splitlines() if line.strip()) or "Compose does not accept it"
    # Compose names things as `services.postfix.ports`, or as `services.postfix additional properties 'x' not allowed`.
    best: Keys = ()
    for dotted, extra in re.findall(r"([\w@-]+(?:\.[\w@\[\]-]+)+)(?:[^']{0,60}'([\w-]+)')?", message):
        keys: Keys = tuple(dotted.split("."))
        best = max(best, (*keys, extra) if extra else keys, key=lambda k: _found(k, files))
    return LabFileError(f"{locate(best, files)}: {message}")


def _found(keys: Keys, files: Sequence[Path]) -> int:
    """How many of `keys` the files have, at the most."""
    import yaml

    most = 0
    for file in files:
        node: Any = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        depth = 0
        for key in keys:
            step = _child(node, key)
            if step is None:
                break
            depth, node = depth + 1, step[1]
        most = max(most, depth)
    return most
