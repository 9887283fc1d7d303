"""The files for a lab's containers: secrets and tables, in one private directory.

accounts                        Dovecot's passwd-file: every account's password
relay                           the relay's user and password, one line
student                         the account of the sender's user and its password, one line; may be empty
relay_outside                   the user's credentials for an outside relay
postfix.pem dovecot.pem sender.pem   key, certificate and chain of each server
ca.pem                          the lab's CA
relay_ca.pem                    additional CAs that the sender trusts, for an outside relay; may be empty
added/                          accounts added to the running lab: one passwd-file each, named by the address
addresses                       the added accounts for Postfix, without passwords
postfix.cf sender.cf dovecot.conf mailboxes aliases owners   not secret; see render.py
"""

from __future__ import annotations

import contextlib
import re
import secrets as _random
from collections.abc import Collection, Mapping
from pathlib import Path

from mailstack.config import pki, render
from mailstack.errors import InputError
from mailstack.model import STUDENT, Account, Lab
from mailstack.roles import STANDARD, Role, Service
from mailstack.secret import Blotter, Secret, new_password, write_private
from mailstack.storage.directories import make_subdirectory
from mailstack.text.addresses import address_flaw

# A client on this machine connects to `localhost` or 127.0.0.1.
SERVER_NAMES: Mapping[str, tuple[str, ...]] = {name: (name, "localhost", "127.0.0.1") for name in STANDARD.values()}

# Dovecot reads these at each use. Postfix has `addresses` in a table that is changed while Postfix runs.
_FRESH = frozenset({"accounts", "relay", "addresses"})

_LEAST_VALIDITY_DAYS = 1


def readers(changed: Collection[str], services: Collection[Service], gone: Collection[str] = ()) -> list[str]:
    """Return the names of the services to restart after a change of these files.

    `gone` are those that were removed meanwhile: a container sees the removed file until it is restarted.
    """
    noticed = _FRESH.difference(gone)
    stale = [service for service in services if not noticed.issuperset(set(changed).intersection(service.files))]
    # Each smtpd(8) keeps a connection to the store for SASL, and replies 454 once after losing it.
    if any(service.role is Role.STORE for service in stale):
        stale += [service for service in services if service.role is Role.SUBMISSION]
    return sorted({service.name for service in stale})


def desired(
    directory: Path,
    lab: Lab,
    *,
    fresh: pki.Pki | None = None,
    outside: Secret | None = None,
    relay_ca: str | None = None,
) -> dict[str, Secret]:
    """Return the desired contents of a lab's files, by name, without files that are kept whatever they contain.

    Existing passwords and valid certificates are kept; `fresh` certificates replace missing or expiring ones.
    `relay_ca` None keeps an existing file: with plain Compose, the user has written it.
    """
    relay_user, relay_password = read_relay(directory) or (f"relay-{_random.token_hex(4)}", new_password())
    present = passwords(directory)
    accounts = {address: present.get(address) or new_password() for address in lab.addresses()}
    student = f"{STUDENT}@{lab.mailname}"
    contents = {
        "relay": render.credentials_file(relay_user, relay_password),
        "accounts": render.accounts_file(lab, accounts),
        "student": render.credentials_file(student, accounts[student]) if student in accounts else Secret(""),
    }
    if not (directory / "addresses").exists():
        contents["addresses"] = Secret("")
    if not certificates_valid(directory):
        certificates = fresh or pki.make(SERVER_NAMES)
        contents |= {
            "ca.pem": Secret(certificates.ca),
            **{f"{service}.pem": pem for service, pem in certificates.servers.items()},
        }
    if outside is not None:
        contents["relay_outside"] = outside
    if lab.relay and (relay_ca is not None or not (directory / "relay_ca.pem").exists()):
        contents["relay_ca.pem"] = Secret(relay_ca or "")
    return contents | {name: Secret(text) for name, text in render.tables(lab, relay_user).items()}


def write(directory: Path, texts: Mapping[str, Secret]) -> set[str]:
    """Write files into a lab's directory; return the names of those that changed."""
    make_subdirectory(directory / "added")
    return {name for name, text in texts.items() if write_private(directory / name, text.reveal())}


def differing(texts: Mapping[str, Secret], present: Mapping[str, Secret]) -> tuple[str, ...]:
    """Return the names of the files of `texts` that are missing in `there`, or have other contents there."""
    return tuple(sorted(name for name, text in texts.items() if name not in present or present[name] != text))


def snapshot(directory: Path) -> dict[str, Secret]:
    """Return all present files of the directory, for `put_back`; without the added accounts in `added/`."""
    return {path.name: Secret(_read(path)) for path in directory.glob("*") if path.is_file()}


def restore(directory: Path, before: Mapping[str, Secret]) -> set[str]:
    """Restore the files of the directory from `before`; return the names that differed."""
    changed = set()
    for path in directory.glob("*"):
        if path.is_file() and path.name not in before:
            path.unlink()
            changed.add(path.name)
    for name, text in before.items():
        if write_private(directory / name, text.reveal()):
            changed.add(name)
    return changed


def _read(path: Path) -> str:
    """Return the text of a file of the lab. Raises InputError when it is not text in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text in UTF-8") from None


def certificates_valid(directory: Path) -> bool:
    """Return whether all certificates exist with their keys, and are valid for at least one more day."""
    import datetime
    import ssl

    try:
        end = pki.expires((directory / "ca.pem").read_text(encoding="utf-8"))
        for service in SERVER_NAMES:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(directory / f"{service}.pem")
    except (OSError, ValueError):  # also ssl.SSLError
        return False
    return end > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=_LEAST_VALIDITY_DAYS)


def passwords(directory: Path) -> dict[str, Secret]:
    """Return address → password of a lab's accounts, including added ones."""
    try:
        text = _read(directory / "accounts")
    except FileNotFoundError:
        return {}
    return render.passwords_of(text + "".join(_added_lines(directory)))


def added(directory: Path) -> list[Account]:
    """Return the accounts that were added to the running lab, sorted by address."""
    return [render.account_of(line) for line in _added_lines(directory)]


def _added_lines(directory: Path) -> list[str]:
    """Return the line of each added account. Other processes may add and remove accounts meanwhile."""
    lines = []
    for path in sorted((directory / "added").glob("*@*")):
        with contextlib.suppress(FileNotFoundError):
            lines.append(_read(path))
    return [line for line in lines if line.endswith("\n")]  # a new file is empty for a moment


def is_added(directory: Path, address: str) -> bool:
    """Return whether an account was added to the running lab. Raises InputError for an invalid address."""
    return _added_path(directory, address).exists()


def _added_path(directory: Path, address: str) -> Path:
    """Return the file of an added account. Raises InputError for an invalid address, which could name any file."""
    if flaw := address_flaw(address):
        raise InputError(f"{address[:300]!r} {flaw}")
    return directory / "added" / address


def add(directory: Path, accounts: Mapping[Account, Secret]) -> list[str]:
    """Write added accounts for Dovecot, which reads them at once, and for the next start of Postfix.

    Returns the names of the changed files. Raises InputError for an invalid address.
    """
    make_subdirectory(directory / "added")
    for account, password in accounts.items():
        write_private(_added_path(directory, account.address), render.account_line(account, password).reveal())
    table = directory / "addresses"
    names = [account.address for account in accounts]
    # In a table of Postfix (postmap(1)), an added account maps to itself.
    write_private(table, _without(_read(table), names) + "".join(f"{name} {name}\n" for name in names))
    return [table.name, *(f"added/{name}" for name in names)]


def remove(directory: Path, removed: Collection[str]) -> list[str]:
    """Remove added accounts; return the names of the changed files.

    Raises InputError for an invalid address, before anything is changed.
    """
    paths = [_added_path(directory, address) for address in removed]
    table = directory / "addresses"
    write_private(table, _without(_read(table), removed))
    for path in paths:
        path.unlink(missing_ok=True)
    return [table.name, *(f"added/{name}" for name in removed)]


def _without(table: str, removed: Collection[str]) -> str:
    return "".join(line for line in table.splitlines(keepends=True) if line.split()[0] not in removed)


def read_relay(directory: Path) -> tuple[str, Secret] | None:
    """Return the user and the password of the relay in the lab; None when there are none."""
    try:
        user, _, password = _read(directory / "relay").strip().partition(":")
    except FileNotFoundError:
        return None
    return (user, Secret(password)) if user and password else None


def blotter(directory: Path) -> Blotter:
    """Return a Blotter for the lab's secrets: passwords, also the user's for an outside relay, and private keys."""
    secrets = list(passwords(directory).values())
    for name in ("relay", "relay_outside"):
        with contextlib.suppress(FileNotFoundError):
            secrets.append(Secret(_read(directory / name).rstrip("\n").partition(":")[2]))
    for path in directory.glob("*.pem"):
        with contextlib.suppress(FileNotFoundError):
            keys = _PRIVATE_KEY.findall(_read(path))
            secrets += [Secret(line) for key in keys for line in key.split() if len(line) >= _LEAST_OF_A_KEY]
    return Blotter(secrets)


def blot(directory: Path, text: str) -> str:
    """Return `text` without any secret of the lab. A server may have repeated one in it."""
    return blotter(directory).clean(text)


_PRIVATE_KEY = re.compile("-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)
_LEAST_OF_A_KEY = 16  # characters of a line: the last line of a key may be too short to be unique


def rotate_relay(directory: Path) -> tuple[str, Secret]:
    """Write a new password of the lab's relay to `relay`, valid from the next log-in on. Raises InputError."""
    credentials = read_relay(directory)
    if credentials is None:
        raise InputError(f"{directory}: there are no relay credentials to rotate")
    password = new_password()
    write_private(directory / "relay", render.credentials_file(credentials[0], password).reveal())
    return credentials[0], password
