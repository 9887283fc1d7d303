"""A lab as variables, for programs in any language: where mail is submitted and read, as whom, and whom to trust."""

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
    """What a program needs: SMTP as the user that sends for every address of the lab's domains, the rest as `account`.

    `trust` adds what has OpenSSL (its manual, SSL_CTX_set_default_verify_paths(3)), Go and Node (its manual,
    NODE_EXTRA_CA_CERTS) trust the lab's CA by themselves. Raises InputError where there is no such account.
    """
    there, host = lab.endpoints, loopback_name()
    machine, machine_password = credentials.of(lab, "relay")
    reader, reader_password = credentials.of(lab, account)
    authority = str(lab.ca_file)
    found: dict[str, str | Secret] = {
        "SMTP_HOST": host,
        "SMTP_PORT": str(there["submission"].port),
        "SMTPS_PORT": str(there["submissions"].port),
        "SMTP_USER": machine,
        "SMTP_PASSWORD": machine_password,
    }
    for protocol in ("imap", "pop3"):
        found |= {
            f"{protocol.upper()}_HOST": host,
            f"{protocol.upper()}_PORT": str(there[protocol].port),
            f"{protocol.upper()}S_PORT": str(there[f"{protocol}s"].port),
            f"{protocol.upper()}_USER": reader,
            f"{protocol.upper()}_PASSWORD": reader_password,
        }
    found["MAIL_CA_FILE"] = authority
    if trust:
        found |= {"SSL_CERT_FILE": authority, "NODE_EXTRA_CA_CERTS": authority}
    return found


def revealed(found: Variables) -> dict[str, str]:
    """The variables with their passwords."""
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in found.items()}


def _sh(name: str, value: str) -> str:
    """POSIX, Shell Command Language, section 2.2.2."""
    return f"export {name}={shlex.quote(value)}"


def _fish(name: str, value: str) -> str:
    """fish's manual, “Quotes”: in single quotes, a backslash escapes itself and the quote alone."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"set -gx {name} '{escaped}'"


def _dotenv(name: str, value: str) -> str:
    """As it is, for readers that take no quotes: `docker run --env-file`, $GITHUB_ENV, GitLab's dotenv reports."""
    if "\n" in value:
        raise InputError(f"{name} has two lines, and this format one for each variable", remedy="--format sh")
    return f"{name}={value}"


FORMATS: Mapping[str, Callable[[str, str], str]] = {"sh": _sh, "fish": _fish, "dotenv": _dotenv}


def written(found: Variables, form: str) -> str:
    """The variables with their passwords, a line for each, in one of FORMATS. Raises InputError."""
    return "\n".join(FORMATS[form](name, value) for name, value in revealed(found).items())
