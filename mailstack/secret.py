"""Values that must not be seen, and the files that they are kept in."""

from __future__ import annotations

import base64
import os
import secrets as _random
from collections.abc import Iterable
from pathlib import Path

from mailstack import storage
from mailstack.errors import HostError

_BLOT = "••••••"


class Secret:
    """A value that shows itself only when asked by name: `str`, `repr`, formatting and pickling never reveal it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. Each call is a place to look at in review."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({_BLOT})"

    def __str__(self) -> str:
        return _BLOT

    def __format__(self, spec: str) -> str:
        return _BLOT

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and _random.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not serialised")


def new_password() -> Secret:
    """A fresh password of 24 characters (144 bits), safe in every file format that the lab uses.

    None begins with a dash: a user's program that is given it would take it for an option.
    """
    while (value := _random.token_urlsafe(18)).startswith("-"):
        pass
    return Secret(value)


def blot(text: str, secrets: Iterable[Secret]) -> str:
    """`text` without these secrets, as they are and in base64, wherever in what was encoded they begin (RFC 4616)."""
    for secret in secrets:
        value = secret.reveal().encode()
        forms = [value.decode()]
        for before in range(3):
            encoded = base64.b64encode(bytes(before) + value).decode()
            # The characters that the value alone decides: six bits each.
            forms.append(encoded[(before * 8 + 5) // 6 : (before + len(value)) * 8 // 6])
        for form in forms:
            text = text.replace(form, str(secret))
    return text


def write_private(path: Path, text: str) -> bool:
    """Write `text` to `path`, readable by its owner alone (0600); say whether anything changed.

    The file is rewritten in place, never replaced: a container sees a bind-mounted file by its inode. Its time of
    change is set to a minute ago, or a second after the last one: Postfix waits until a file that it reads is no longer
    new (dict_load_file_xt), and Dovecot reads a passwd-file again when its time, in whole seconds, differs. Raises
    HostError, also for a link and for a file that is not this user's alone.
    """
    data = text.encode()
    try:
        is_new = not os.path.lexists(path)
        with open(storage.open_file(path, os.O_RDWR | os.O_CREAT), "r+b") as file:
            last = int(os.fstat(file.fileno()).st_mtime)
            if not is_new and file.read() == data:
                return False
            os.fchmod(file.fileno(), 0o600)
            file.seek(0)
            file.truncate()
            file.write(data)
            file.flush()
            now = int(os.fstat(file.fileno()).st_mtime)
            moment = now - 60 if is_new else max(now - 60, last + 1)
            os.utime(file.fileno(), (moment, moment))
    except OSError as error:
        raise HostError(f"{path}: cannot be written: {error.strerror}") from None
    return True
