"""Values that must not be seen, and the directory where they are kept."""

from __future__ import annotations

import base64
import os
import secrets as _random
from collections.abc import Iterable
from pathlib import Path

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
    new (dict_load_file_xt), and Dovecot reads a passwd-file again when its time, in whole seconds, differs.
    """
    data = text.encode()
    try:
        before = path.stat()
    except FileNotFoundError:
        before = None
    if before is not None and path.read_bytes() == data:
        return False
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        raise HostError(f"{path}: cannot be written: {error.strerror}") from None
    now = int(path.stat().st_mtime)
    moment = now - 60 if before is None else max(now - 60, int(before.st_mtime) + 1)
    os.utime(path, (moment, moment))
    return True


def runtime_directory() -> Path:
    """Where this user's labs keep their secrets: a 0700 directory on tmpfs, so that nothing outlives the machine.

    `MAILSTACK_RUNTIME_DIR`, else the user's own runtime directory, else shared memory.
    Raises HostError when there is none, or when the one there is belongs to somebody else.
    """
    uid = os.getuid()
    chosen = os.environ.get("MAILSTACK_RUNTIME_DIR")
    if chosen:
        directory = Path(chosen).absolute()
    elif (own := os.environ.get("XDG_RUNTIME_DIR")) and os.access(own, os.W_OK):
        directory = Path(own) / "mailstack"
    elif os.access("/dev/shm", os.W_OK):
        directory = Path("/dev/shm") / f"mailstack-{uid}"
    else:
        raise HostError(
            "there is no place on tmpfs for the lab's secrets: neither XDG_RUNTIME_DIR nor /dev/shm can be written",
            remedy="set MAILSTACK_RUNTIME_DIR to a directory that only you can read",
        )
    make_private_directory(directory)
    return directory


def make_private_directory(directory: Path) -> None:
    """Make `directory` (0700) with its parents; refuse one that another user owns or may enter."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise HostError(f"{directory}: cannot be made: {error.strerror}") from None
    if status.st_uid != os.getuid():
        raise HostError(f"{directory}: belongs to another user", remedy="choose another directory, or remove it")
    if status.st_mode & 0o077:
        directory.chmod(0o700)
