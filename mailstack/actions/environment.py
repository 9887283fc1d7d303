"""A lab as environment variables: endpoints for submission and reading, credentials, and the CA to trust."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

from mailstack.actions import credentials
from mailstack.errors import InputError
from mailstack.lab.running import RunningLab
from mailstack.network.ports import loopback_name
from mailstack.secret import Secret

Variables = Mapping[str, str | Secret]


def variables(lab: RunningLab, account: str, *, trust: bool = False) -> Variables:
    """Return a program's variables: SMTP as the user that may send for all the lab's domains, the rest as `account`.

    With `trust`, the variables also make OpenSSL (its manual, SSL_CTX_set_default_verify_paths(3)), Go and Node (its
    manual, NODE_EXTRA_CA_CERTS) trust the lab's CA. Raises InputError if there is no such account.
    """
    endpoints, host = lab.endpoints, loopback_name()
    relay_user, relay_password = credentials.of(lab, "relay")
    reader, reader_password = credentials.of(lab, account)
    authority = str(lab.ca_file)
    variables: dict[str, str | Secret] = {
        "SMTP_HOST": host,
        "SMTP_PORT": str(endpoints["submission"].port),
        "SMTPS_PORT": str(endpoints["submissions"].port),
        "SMTP_USER": relay_user,
        "SMTP_PASSWORD": relay_password,
    }
    for protocol in ("imap", "pop3"):
        variables |= {
            f"{protocol.upper()}_HOST": host,
            f"{protocol.upper()}_PORT": str(endpoints[protocol].port),
            f"{protocol.upper()}S_PORT": str(endpoints[f"{protocol}s"].port),
            f"{protocol.upper()}_USER": reader,
            f"{protocol.upper()}_PASSWORD": reader_password,
        }
    variables["MAIL_CA_FILE"] = authority
    if trust:
        variables |= {"SSL_CERT_FILE": authority, "NODE_EXTRA_CA_CERTS": authority}
    return variables


def revealed(variables: Variables) -> dict[str, str]:
    """Return the variables with their passwords in clear text."""
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in variables.items()}


def _sh(name: str, value: str) -> str:
    """Quote for a POSIX shell (Shell Command Language, section 2.2.2)."""
    return f"export {name}={shlex.quote(value)}"


def _fish(name: str, value: str) -> str:
    """Quote for fish (its manual, “Quotes”): in single quotes, a backslash escapes only itself and the quote."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"set -gx {name} '{escaped}'"


def _dotenv(name: str, value: str) -> str:
    """Leave the value as it is: `docker run --env-file`, $GITHUB_ENV and GitLab's dotenv reports do not unquote."""
    if "\n" in value:
        raise InputError(f"{name} has several lines, which this format does not allow", remedy="--format sh")
    return f"{name}={value}"


FORMATS: Mapping[str, Callable[[str, str], str]] = {"sh": _sh, "fish": _fish, "dotenv": _dotenv}


def formatted(variables: Variables, form: str) -> str:
    """Return the variables with their passwords, one a line, in one of FORMATS. Raises InputError."""
    return "\n".join(FORMATS[form](name, value) for name, value in revealed(variables).items())
