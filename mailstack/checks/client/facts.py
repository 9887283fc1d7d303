"""What was found on the sender: settings in effect, and what they lead to. Data without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

# Types of maps with an index that postmap(1) makes from a text, and the suffix of the index; DATABASE_README.
SUFFIXES = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb", "dbm": ".pag", "sdbm": ".pag"}
# Types whose name in main.cf contains the passwords themselves.
_INLINE = ("static", "inline", "randmap")


class Login(StrEnum):
    """Whether the provider accepts the user and the password in the map."""

    ACCEPTED = "accepted"
    WRONG_PASSWORD = "wrong password"
    UNKNOWN_USER = "unknown user"
    NOT_OWNER = "not the owner of the student's address"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class PasswordMap:
    """A table of smtp_sasl_password_maps, and the state of its files."""

    type: str
    path: str
    text: bool = True  # whether the text is there that postmap(1) reads
    index: bool = True  # whether the index is there that postmap(1) writes
    stale: bool = False  # whether the text is newer than the index
    exposed: str = ""  # `0644 root /path` of a file that others may read

    @property
    def indexed(self) -> bool:
        """Whether it is read from an index."""
        return self.type in SUFFIXES

    @property
    def readable(self) -> bool:
        """Whether the file that Postfix reads is there."""
        return self.index if self.indexed else self.text

    @property
    def file(self) -> str:
        """Return the file that Postfix reads."""
        return self.path + SUFFIXES.get(self.type, "")

    @property
    def name(self) -> str:
        """Return type and path as in main.cf; without the path of a type that has the passwords there."""
        return f"{self.type}:…" if self.type in _INLINE else f"{self.type}:{self.path}"


def password_maps(value: str) -> tuple[PasswordMap, ...]:
    """Return the tables that smtp_sasl_password_maps names: `type:path`, with commas or blanks between them."""
    tables = re.findall(r"(?:[^\s,{}]|\{(?:[^{}]|\{[^{}]*\})*\})+", value)
    pairs = (table.removeprefix("proxy:").partition(":") for table in tables)
    return tuple(PasswordMap(type, path) if separator else PasswordMap("hash", type) for type, separator, path in pairs)


def without_passwords(text: str) -> str:
    """Return lines of postconf(1) without passwords that stand in main.cf itself, in a table or a parameter."""
    text = re.sub(rf"\b({'|'.join(_INLINE)}):.*", r"\1:…", text)
    return re.sub(r"(?m)^(\w*(?:_pw|_password|_passwd|_secret) *=) *\S.*", r"\1 …", text)


@dataclass(frozen=True, slots=True)
class NextHop:
    """A value of relayhost: `[host]:port`; without brackets the MX of the host is used (postconf(5))."""

    host: str
    port: int
    brackets: bool

    @classmethod
    def parse(cls, value: str) -> NextHop:
        """Return the parts of a relayhost. A port that is no number, like `submission`, is looked up."""
        found = re.fullmatch(r"(?P<open>\[)?(?P<host>[^\[\]:\s]*)\]?(?::(?P<port>\w+))?", value)
        if not found:
            return NextHop(value, 0, False)
        port = found["port"] or "25"
        number = int(port) if port.isdecimal() else _PORTS.get(port, 0)
        return NextHop(found["host"], number, bool(found["open"]))


_PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Server:
    """The key and the certificate of the sender's own server."""

    certificate: str = ""  # the file
    key: str = ""
    problem: str = ""  # why they cannot be used


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found on the sender, and what the lab expects of it."""

    mailname: str  # of the lab
    provider: str  # the relay host that the lab expects, as a name
    port: int = 587
    student: str = ""  # the address of the sender's user
    domains: tuple[str, ...] = ()  # of the lab
    outside: bool = False  # whether the provider is outside the lab
    machine: str = "sender"
    user: str = ""  # the command that shows the one to log in as, for remedies
    error: str = ""  # why Postfix cannot read its configuration
    running: bool = True
    unread: str = ""  # a file that was changed after Postfix had read it
    settings: Mapping[str, str] = field(default_factory=dict)
    configured: str = ""  # main.cf as `postconf -n` prints it, without passwords
    unused: tuple[str, ...] = ()  # `name=value` that Postfix does not know
    types: frozenset[str] = frozenset()  # of maps that this Postfix supports
    origin: str = ""  # what comes after the @ of the machine's users
    reaches_provider: bool = False  # whether relayhost's host has the provider's address
    addresses: tuple[str, ...] = ()  # of the sender itself
    maps: tuple[PasswordMap, ...] = ()
    login: Login = Login.MISSING
    login_user: str = ""
    key: str = ""  # of the map, under which the user was found
    ca_bundle: str = ""  # the file of CAs that was read
    ca_count: int = 0
    trusts_provider: bool = False
    server: Server = Server()

    def setting(self, name: str) -> str:
        """Return a value in effect; "" for one that is not set or unknown."""
        return self.settings.get(name, "")

    @property
    def next_hop(self) -> NextHop:
        """Return the parts of relayhost."""
        return NextHop.parse(self.setting("relayhost"))

    @property
    def client_tls(self) -> str:
        """Return the TLS level of the SMTP client (postconf(5), smtp_tls_security_level)."""
        return _level(self.settings, "smtp")

    @property
    def server_tls(self) -> str:
        """Return the TLS level of the SMTP server."""
        return _level(self.settings, "smtpd")


def _level(settings: Mapping[str, str], program: str) -> str:
    """Return a TLS level: the older settings count where the newer one is empty."""
    if level := settings.get(f"{program}_tls_security_level", ""):
        return level
    if settings.get(f"{program}_enforce_tls") == "yes":
        return "encrypt"
    return "may" if settings.get(f"{program}_use_tls") == "yes" else "none"
