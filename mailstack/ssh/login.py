"""Log in to a host as OpenSSH would, over all jump hosts.

Fabric reads ~/.ssh/config (names, users, ports, keys, ProxyJump). Host keys are verified against known_hosts (sshd(8)).
An unknown host is refused, although Fabric would add it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mailstack import library_errors
from mailstack.errors import HostError, MailstackError
from mailstack.model import Deadline
from mailstack.secret import Secret
from mailstack.ssh import transport
from mailstack.ssh.address import Host

# Timeouts in seconds: until a machine answers, and until the login to the host is complete, over all jump hosts and
# with any key.
CONNECT_SECONDS = 10
LOGIN_SECONDS = 12

_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


class Refused(HostError):
    """The host accepts none of the offered keys. `question` is the prompt for the user, if an answer may help."""

    def __init__(self, message: str, *, remedy: str, question: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.question = question


def log_in(host: Host, answers: Mapping[str, Secret]) -> list[Any]:
    """Return logged-in connections, each through the one before it; the last one is to the host.

    `answers` are the user's answers to the questions of Refused. Raises HostError; Refused when no key is accepted.
    """
    import fabric

    with mapped(host):
        try:
            last = fabric.Connection(
                host.machine, user=host.user, port=host.port, connect_kwargs={"transport_factory": transport.kind()}
            )
        except ValueError as error:  # a port that is no number, say
            raise _unusable_settings(host, error) from None
        hops, deadline = _hops(last), Deadline.after(LOGIN_SECONDS)
        for hop in hops:
            one = _Hop(host, hop, str(host) if hop is last else hop.original_host, hop is last)
            with one.in_time(deadline):
                one.log_in(answers)
    return hops


@contextlib.contextmanager
def mapped(host: Host) -> Iterator[None]:
    """Map the libraries' errors to a HostError that names the host. Other errors pass unchanged."""
    try:
        yield
    except MailstackError:
        raise
    except Exception as error:
        if (mapped_error := errors(host).of(error)) is None:
            raise
        raise mapped_error from None


_ENDED = "SSH session not active"  # paramiko's words for a connection that has ended


def errors(host: Host) -> library_errors.Table:
    """Return the table that maps the libraries' errors to errors for the user."""

    def broken(error: Exception) -> HostError:
        reason = getattr(error, "strerror", None) or str(error)
        if reason in ("", _ENDED):
            reason = "the connection was lost"
        return HostError(f"{host}: {reason}")

    def settings(error: Exception) -> HostError:
        return _unusable_settings(host, error)

    return library_errors.Table({broken: library_errors.SSH, settings: library_errors.SSH_SETTINGS})


def _unusable_settings(host: Host, error: Exception) -> HostError:
    return HostError(
        f"{host}: your SSH configuration cannot be used: {type(error).__name__}: {error}",
        remedy=f"see ~/.ssh/config and ~/.ssh/known_hosts: `ssh -v {host}` names the line",
    )


class _Hop:
    """A jump host, or the host itself at the end."""

    def __init__(self, host: Host, connection: Any, called: str, last: bool) -> None:
        self._host = host
        self._connection = connection
        self._name = called if last else f"{host} (on the way, {called})"
        self._password = f"password for {called}"
        self._passphrase = f"passphrase of the key for {called}"

    @contextlib.contextmanager
    def in_time(self, deadline: Deadline) -> Iterator[None]:
        """Close the connections when the deadline passes. Raises HostError."""
        late = threading.Event()
        timer = threading.Timer(deadline.remaining(), self._give_up, (late,))
        timer.start()
        try:
            yield
        except HostError:
            if not late.is_set():
                raise
            raise HostError(
                f"{self._name}: no answer while logging in, after {deadline.seconds:g} s",
                remedy=f"see what `ssh {self._host}` waits for: the host, or its directory of users, may be down",
            ) from None
        finally:
            timer.cancel()

    def _give_up(self, late: threading.Event) -> None:
        late.set()
        for each in _hops(self._connection):
            if (transport := each.client.get_transport()) is not None:
                transport.close()

    def log_in(self, answers: Mapping[str, Secret]) -> None:
        """Connect and log in. Raises HostError."""
        import paramiko

        self._prepare(answers)
        try:
            self._connection.open()
        except paramiko.AuthenticationException as error:
            if isinstance(error, paramiko.PasswordRequiredException):
                raise Refused(
                    f"{self._name}: the key for it is encrypted",
                    remedy="add it to your agent: ssh-add",
                    question=self._passphrase,
                ) from None
            if self._was_cut():
                raise self._connection_cut() from None
            kinds = getattr(error, "allowed_types", [])
            raise self._refused(answers, password="password" in kinds or not kinds) from None
        except paramiko.SSHException as error:
            raise self._protocol_error(error, answers) from None
        except (OSError, EOFError) as error:  # includes TimeoutError
            raise self._unreachable(error) from None

    def _protocol_error(self, error: Exception, answers: Mapping[str, Secret]) -> HostError:
        """Return the error for the user for an error of the SSH protocol."""
        import paramiko

        if isinstance(error, paramiko.BadHostKeyException):
            known, shown = fingerprint(error.expected_key), fingerprint(error.key)
            return HostError(
                f"{self._name}: its host key has changed: known is {known}, offered was {shown}",
                remedy="this may be an attack from in between. If you know that the key is new: "
                f"ssh-keygen -R {_known_name(error.hostname, self._connection.port)}, then connect once with ssh",
            )
        if self._passphrase in answers:  # which does not decrypt the key
            return Refused(
                f"{self._name}: wrong passphrase for the key",
                remedy="add the key to your agent: ssh-add",
                question=self._passphrase,
            )
        if "No authentication methods available" in str(error):  # neither a key nor a password to offer
            return self._refused(answers, password=True)
        if self._was_cut():
            return self._connection_cut()
        return HostError(
            f"{self._name}: SSH failed: {error}",
            remedy="does sshd listen there? After failed log-ins it refuses connections from the same "
            "address (PerSourcePenalties in sshd_config(5)): then try again in a minute",
        )

    def _unreachable(self, error: OSError | EOFError) -> HostError:
        """Return the error for the user for a network error."""
        import paramiko

        remedy = "is the machine up, and does sshd listen there?"
        if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
            where = f"{self._connection.host}:{self._connection.port}"
            reason = next(iter(error.errors.values())).strerror
            return HostError(f"{self._name}: cannot connect to {where}: {reason}", remedy=remedy)
        if isinstance(error, socket.gaierror):
            return HostError(
                f"{self._name}: the host name cannot be resolved: {error.strerror}",
                remedy="write ssh://user@machine, or a Host of ~/.ssh/config",
            )
        reason = getattr(error, "strerror", None) or str(error) or "it does not answer"
        return HostError(f"{self._name}: {reason}", remedy=remedy)

    def _prepare(self, answers: Mapping[str, Secret]) -> None:
        """Set the library's options that differ from its defaults."""
        connection = self._connection
        connection.connect_timeout = CONNECT_SECONDS
        options = dict(connection.connect_kwargs, banner_timeout=CONNECT_SECONDS)
        options["auth_timeout"] = 2 * LOGIN_SECONDS  # per key; the deadline for all keys is shorter
        # Skip files that do not exist, as ssh(1) does.
        options["key_filename"] = [
            name for name in options.get("key_filename", []) if Path(name).expanduser().is_file()
        ]
        for word, question in (("password", self._password), ("passphrase", self._passphrase)):
            if question in answers:
                options[word] = answers[question].reveal()
        connection.connect_kwargs = options
        _verify(connection, self._name, self._host)

    def _was_cut(self) -> bool:
        """Return whether the connection was lost after it was open: then a failed login says nothing about the keys."""
        transport = self._connection.client.get_transport()
        return transport is not None and transport.remote_version != "" and not transport.is_active()

    def _connection_cut(self) -> HostError:
        return HostError(
            f"{self._name}: the connection was lost while logging in",
            remedy="try again; where your agent has many keys, sshd gives up before the right one comes: "
            "name its file in ~/.ssh/config by IdentityFile, then it comes first",
        )

    def _refused(self, answers: Mapping[str, Secret], *, password: bool) -> Refused:
        how = " with this password" if self._password in answers else ": none of your keys was accepted"
        return Refused(
            f"{self._name}: {self._connection.user} is refused{how}",
            remedy=f"see whether `ssh {self._host}` works: the keys in your agent and in ~/.ssh/config are used",
            question=self._password if password else "",
        )


def _hops(connection: Any) -> list[Any]:
    """Return the connections that lead to a host, the host's own last."""
    hops: list[Any] = []
    while connection and not isinstance(connection, str):  # a string: ProxyCommand
        hops.insert(0, connection)
        connection = connection.gateway
    return hops


def _verify(connection: Any, name: str, host: Host) -> None:
    """Make a connection verify its host's key."""
    import paramiko

    class Unknown(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        """Refuse a key that is in no known_hosts file."""

        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            raise HostError(
                f"{name}: its host key is unknown: {fingerprint(key)}",
                remedy="compare it with the one from the machine's administrator, and connect once with "
                f"`ssh {host}`: that adds it to ~/.ssh/known_hosts",
            )

    connection.client.set_missing_host_key_policy(Unknown())
    known_hosts = str(connection.ssh_config.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"))
    for each in (*_KNOWN_HOSTS, *known_hosts.split()):
        path = Path(each).expanduser()
        if path.is_file():
            connection.client.load_system_host_keys(str(path))


def fingerprint(key: Any) -> str:
    """Return a host key's fingerprint in the format of ssh(1)."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"SHA256:{digest} ({key.get_name()})"


def _known_name(hostname: str, port: int) -> str:
    return hostname if port == 22 or hostname.startswith("[") else f"'[{hostname}]:{port}'"
