"""What a lab's containers are handed: secrets and tables, written into one private directory.

accounts                        Dovecot's passwd-file: every account's password
relay                           the relay's user and password, one line
relay_outside                   the user's own, for a relay outside
postfix.pem dovecot.pem sender.pem   key, certificate and chain of each server
ca.pem                          the lab's CA
relay_ca.pem                    CAs that the sender trusts besides, for a relay outside; empty where there are none
added/                          accounts added to the running lab: a passwd-file for each, by its address
addresses                       the same for Postfix, without passwords
postfix.cf sender.cf dovecot.conf mailboxes aliases owners   not secret; see render.py
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets as _random
import stat
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

from mailstack.config import pki, render
from mailstack.errors import CredentialsError, InputError
from mailstack.model import Account, Lab
from mailstack.roles import STANDARD, Role, Service
from mailstack.secret import Blotter, Secret, new_password, write_private
from mailstack.storage.directories import make_subdirectory
from mailstack.text.addresses import address_flaw

# `localhost` and 127.0.0.1 are what a client on this machine connects to.
SERVER_NAMES: Mapping[str, tuple[str, ...]] = {name: (name, "localhost", "127.0.0.1") for name in STANDARD.values()}

# Dovecot reads these afresh at each use, and Postfix keeps `addresses` in a table that is changed while it runs.
_FRESH = frozenset({"accounts", "relay", "addresses"})

_LEAST_VALIDITY_DAYS = 1


def readers(changed: Collection[str], services: Collection[Service]) -> list[str]:
    """Return which of the services are to be started again when these files have changed."""
    stale = [service for service in services if not _FRESH.issuperset(set(changed).intersection(service.files))]
    # Each smtpd(8) keeps a connection to the store for SASL, and answers 454 once when it is gone.
    if any(service.role is Role.STORE for service in stale):
        stale += [service for service in services if service.role is Role.SUBMISSION]
    return sorted({service.name for service in stale})


def wanted(
    directory: Path,
    lab: Lab,
    *,
    fresh: pki.Pki | None = None,
    outside: Secret | None = None,
    relay_ca: str | None = None,
) -> dict[str, Secret]:
    """Return what the files of a lab should be, by their names; files that are kept whatever is in them are left out.

    Passwords and certificates that the directory has are kept; `fresh` certificates are taken where it has none that
    hold. `relay_ca` None keeps the file that is there: with plain Compose, the user has put it there.
    """
    relay_user, relay_password = read_relay(directory) or (f"relay-{_random.token_hex(4)}", new_password())
    known = passwords(directory)
    accounts = {address: known.get(address) or new_password() for address in lab.addresses()}
    found = {
        "relay": render.credentials_file(relay_user, relay_password),
        "accounts": render.accounts_file(lab, accounts),
    }
    if not (directory / "addresses").exists():
        found["addresses"] = Secret("")
    if not certificates_hold(directory):
        made = fresh or pki.make(SERVER_NAMES)
        found |= {"ca.pem": Secret(made.ca), **{f"{service}.pem": pem for service, pem in made.servers.items()}}
    if outside is not None:
        found["relay_outside"] = outside
    if lab.relay and (relay_ca is not None or not (directory / "relay_ca.pem").exists()):
        found["relay_ca.pem"] = Secret(relay_ca or "")
    return found | {name: Secret(text) for name, text in render.tables(lab, relay_user).items()}


def put(directory: Path, texts: Mapping[str, Secret]) -> set[str]:
    """Write files into a lab's directory; gives the names of those that changed."""
    make_subdirectory(directory / "added")
    return {name for name, text in texts.items() if write_private(directory / name, text.reveal())}


def differing(texts: Mapping[str, Secret], there: Mapping[str, Secret]) -> tuple[str, ...]:
    """The names of the files that are not there, or are there with another text."""
    return tuple(sorted(name for name, text in texts.items() if name not in there or there[name] != text))


def kept(directory: Path) -> dict[str, Secret]:
    """Every file in the directory now, for `put_back`; accounts that were added have a directory of their own."""
    return {path.name: Secret(_read(path)) for path in directory.glob("*") if path.is_file()}


def put_back(directory: Path, before: Mapping[str, Secret]) -> set[str]:
    """Make the directory what it was; gives the names that differed."""
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
    """The text of a file of the lab's. Raises InputError where somebody has put something else there."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text in UTF-8") from None


def certificates_hold(directory: Path) -> bool:
    """Whether certificates are there that are valid for a day more."""
    import datetime

    try:
        end = pki.expires((directory / "ca.pem").read_text(encoding="utf-8"))
        complete = all((directory / f"{service}.pem").is_file() for service in SERVER_NAMES)
    except (OSError, ValueError):
        return False
    return complete and end > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=_LEAST_VALIDITY_DAYS)


def passwords(directory: Path) -> dict[str, Secret]:
    """Address → password, of a lab's accounts, those that were added among them."""
    try:
        text = _read(directory / "accounts")
    except FileNotFoundError:
        return {}
    return render.passwords_of(text + "".join(_added_lines(directory)))


def added(directory: Path) -> list[Account]:
    """The accounts that were added to the running lab, by address."""
    return [render.account_of(line) for line in _added_lines(directory)]


def _added_lines(directory: Path) -> list[str]:
    """The line of each account that was added; others may add some, and remove some, meanwhile."""
    lines = []
    for path in sorted((directory / "added").glob("*@*")):
        with contextlib.suppress(FileNotFoundError):
            lines.append(_read(path))
    return [line for line in lines if line.endswith("\n")]  # a file is there a moment before its line


def is_added(directory: Path, address: str) -> bool:
    """Whether an account was added to the running lab. Raises InputError for what is no address of a lab."""
    return _added_path(directory, address).exists()


def _added_path(directory: Path, address: str) -> Path:
    """The file of an added account. Raises InputError for what no address of a lab can be: it could name any file."""
    if flaw := address_flaw(address):
        raise InputError(f"{address[:300]!r} {flaw}")
    return directory / "added" / address


def add(directory: Path, accounts: Mapping[Account, Secret]) -> list[str]:
    """Keep added accounts for Dovecot, which takes them at once, and for Postfix's next start.

    Returns the names of the files that changed.
    """
    make_subdirectory(directory / "added")
    for account, password in accounts.items():
        write_private(_added_path(directory, account.address), render.account_line(account, password).reveal())
    table = directory / "addresses"
    names = [account.address for account in accounts]
    write_private(table, _without(_read(table), names) + "".join(map(render.own_line, names)))
    return [table.name, *(f"added/{name}" for name in names)]


def remove(directory: Path, removed: Collection[str]) -> list[str]:
    """Keep these accounts no longer; returns the names of the files that changed.

    Raises InputError, before anything is done, as `is_added` does.
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
    """The user and the password of the relay in the lab."""
    try:
        user, _, password = _read(directory / "relay").strip().partition(":")
    except FileNotFoundError:
        return None
    return (user, Secret(password)) if user and password else None


def blotter(directory: Path) -> Blotter:
    """Take the lab's secrets out of texts: passwords, also the user's own for a relay outside, and private keys."""
    found = list(passwords(directory).values())
    for name in ("relay", "relay_outside"):
        with contextlib.suppress(FileNotFoundError):
            found.append(Secret(_read(directory / name).rstrip("\n").partition(":")[2]))
    for path in directory.glob("*.pem"):
        with contextlib.suppress(FileNotFoundError):
            keys = _PRIVATE_KEY.findall(_read(path))
            found += [Secret(line) for key in keys for line in key.split() if len(line) >= _LEAST_OF_A_KEY]
    return Blotter(found)


def blot(directory: Path, text: str) -> str:
    """Return `text` without any secret of the lab: a server may have repeated one."""
    return blotter(directory).clean(text)


_PRIVATE_KEY = re.compile("-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)
_LEAST_OF_A_KEY = 16  # characters of one line; the last of a key may be a few that are anywhere


def rotate_relay(directory: Path) -> tuple[str, Secret]:
    """Give the relay in the lab another password, in the file `relay`: it holds from the next log-in on."""
    known = read_relay(directory)
    if known is None:
        raise InputError(f"{directory}: there are no relay credentials to rotate")
    password = new_password()
    write_private(directory / "relay", render.credentials_file(known[0], password).reveal())
    return known[0], password


def read_authorities(path: Path) -> str:
    """A file with certificates of authorities (PEM), one or more. Raises InputError."""
    import ssl

    if path.exists() and not path.is_file():
        raise InputError(f"{path}: the relay's CA should be a file", remedy=_PEM)
    try:
        text = path.read_text(encoding="utf-8")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=text)
    except FileNotFoundError:
        raise InputError(f"{path}: the file with the relay's CA is not there") from None
    except (ssl.SSLError, ValueError):  # ValueError: an empty file, or one that is not text
        raise InputError(f"{path}: there is no certificate in it", remedy=_PEM) from None
    except OSError as error:
        raise InputError(f"{path}: the relay's CA cannot be read: {error.strerror}") from None
    if not context.cert_store_stats()["x509_ca"]:
        raise InputError(f"{path}: the certificate in it is no authority's", remedy=_PEM)
    # Nothing but the certificates: whatever else is in the file (a key, say) stays there.
    return "".join(f"{certificate}\n" for certificate in _CERTIFICATE.findall(text))


_PEM = "it should have the CA's certificate in it, as PEM: -----BEGIN CERTIFICATE-----"
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def read_credentials(path: Path) -> Secret:
    """The user's own relay credentials: `user:password` in one line, in a file that only its owner may read.

    Raises CredentialsError; no message shows what is in the file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CredentialsError(f"{path}: the relay's credentials should be a file", remedy=_SHAPE)
        data = path.read_bytes() if status.st_size <= _MOST_BYTES else None
    except FileNotFoundError:
        raise CredentialsError(f"{path}: the file with the relay's credentials is not there", remedy=_SHAPE) from None
    except OSError as error:
        raise CredentialsError(f"{path}: the relay's credentials cannot be read: {error.strerror}") from None
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise CredentialsError(
            f"{path}: others than its owner may read the relay's credentials (mode {status.st_mode & 0o777:04o})",
            remedy=f"chmod 600 {path}",
        )
    if status.st_uid not in (os.getuid(), 0):
        raise CredentialsError(
            f"{path}: the relay's credentials belong to another user", remedy=f"chown it, then chmod 600 {path}"
        )
    if data is None:
        raise CredentialsError(f"{path}: is longer than {_MOST_BYTES} bytes: these are no credentials", remedy=_SHAPE)
    place, problem = _misfit(data)
    if problem:
        raise CredentialsError(f"{path}{place}: {problem}", remedy=_SHAPE)
    return Secret(data.decode().split("\n")[0].removesuffix("\r") + "\n")


def _misfit(data: bytes) -> tuple[str, str]:
    """What keeps `data` from being `user:password` in one line, and its place; ("", "") if nothing does."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode().split("\n")
        return f":{len(before)}:{len(before[-1]) + 1}", "the relay's credentials are not text in UTF-8"
    if not text.strip():
        return "", "the file with the relay's credentials is empty"
    line, *more = text.split("\n")
    if any(each.strip() for each in more):
        return ":2:1", "the relay's credentials should be one line"
    line = line.removesuffix("\r")
    user, colon, password = line.partition(":")
    if not colon or not user.strip() or not password.strip():
        return ":1:1", "the relay's credentials do not have the form user:password"
    for column, character in enumerate(line, 1):
        # Also what cannot be seen: a byte order mark, say.
        if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp"):
            return f":1:{column}", f"the relay's credentials have the character U+{ord(character):04X} in them"
    if any(character.isspace() for character in user):
        return ":1:1", "the relay's user has spaces in it"
    if password != password.strip():
        return f":1:{len(user) + 2}", "the password begins or ends with a space"
    return "", ""


# Far more than any user and password have; SASL's PLAIN takes 255 bytes of each (RFC 2595, section 6).
_MOST_BYTES = 4096
_SHAPE = "write user:password into it, in one line, and chmod 600 it"
