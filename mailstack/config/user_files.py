"""Read the user's files for an outside relay host: credentials, and certificates of its authorities."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from pathlib import Path

from mailstack.errors import CredentialsError, InputError
from mailstack.secret import Secret


def read_authorities(path: Path) -> str:
    """Return the certificates of one or more authorities (PEM) in a file. Raises InputError."""
    import ssl

    if path.exists() and not path.is_file():
        raise InputError(f"{path}: the relay's CA must be a file", remedy=_PEM)
    try:
        text = path.read_text(encoding="utf-8")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=text)
    except FileNotFoundError:
        raise InputError(f"{path}: the file with the relay's CA does not exist") from None
    except (ssl.SSLError, ValueError):  # ValueError: an empty file, or one that is not text
        raise InputError(f"{path}: contains no certificate", remedy=_PEM) from None
    except OSError as error:
        raise InputError(f"{path}: the relay's CA cannot be read: {error.strerror}") from None
    if not context.cert_store_stats()["x509_ca"]:
        raise InputError(f"{path}: the certificate in it is not a CA's", remedy=_PEM)
    # Only the certificates: anything else in the file, such as a key, is not copied.
    return "".join(f"{certificate}\n" for certificate in _CERTIFICATE.findall(text))


_PEM = "it must contain the CA's certificate as PEM: -----BEGIN CERTIFICATE-----"
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def read_credentials(path: Path) -> Secret:
    """Return the user's relay credentials: `user:password` in one line, in a file that only its owner may read.

    Raises CredentialsError, whose message never contains the contents of the file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CredentialsError(f"{path}: the relay's credentials must be a file", remedy=_SHAPE)
        data = path.read_bytes() if status.st_size <= _MOST_BYTES else None
    except FileNotFoundError:
        raise CredentialsError(f"{path}: the file with the relay's credentials does not exist", remedy=_SHAPE) from None
    except OSError as error:
        raise CredentialsError(f"{path}: the relay's credentials cannot be read: {error.strerror}") from None
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise CredentialsError(
            f"{path}: other users can read the relay's credentials (mode {status.st_mode & 0o777:04o})",
            remedy=f"chmod 600 {path}",
        )
    if status.st_uid not in (os.getuid(), 0):
        raise CredentialsError(
            f"{path}: the relay's credentials belong to another user", remedy=f"chown it, then chmod 600 {path}"
        )
    if data is None:
        raise CredentialsError(f"{path}: is longer than {_MOST_BYTES} bytes: these are not credentials", remedy=_SHAPE)
    place, problem = _find_problem(data)
    if problem:
        raise CredentialsError(f"{path}{place}: {problem}", remedy=_SHAPE)
    return Secret(data.decode().split("\n")[0].removesuffix("\r") + "\n")


def _find_problem(data: bytes) -> tuple[str, str]:
    """Return the place and the reason why `data` is not `user:password` in one line; ("", "") when it is."""
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
        # Also invisible characters, such as a byte order mark.
        if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp"):
            return f":1:{column}", f"the relay's credentials have the character U+{ord(character):04X} in them"
    if any(character.isspace() for character in user):
        return ":1:1", "the relay's user has spaces in it"
    if password != password.strip():
        return f":1:{len(user) + 2}", "the password begins or ends with a space"
    return "", ""


# Far more than any user and password; SASL PLAIN accepts at most 255 bytes of each (RFC 2595, section 6).
_MOST_BYTES = 4096
_SHAPE = "write user:password into it, in one line, and chmod 600 it"
