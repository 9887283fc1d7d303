"""Secret values, their removal from texts, and the private files that contain them."""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import secrets as _random
import shlex
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mailstack.errors import HostError, MailstackError
from mailstack.storage import directories

_BLOT = "••••••"


class Secret:
    """A value that only `reveal` shows: `str`, `repr` and formatting hide it, and pickling raises TypeError."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself. Each call deserves a look in review."""
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


# Asks the user a question of a host, for example for a password; returns the answer, or None without a terminal.
Ask = Callable[[str], Secret | None]


def new_password() -> Secret:
    """Return a new random password of 24 characters (144 bits), safe in every file format that the lab uses.

    It never begins with a dash, because a program could take it for an option.
    """
    while (value := _random.token_urlsafe(18)).startswith("-"):
        pass
    return Secret(value)


def blot(text: str, secrets: Iterable[Secret]) -> str:
    """Return `text` without these secrets, in any encoding that Blotter knows."""
    return Blotter(secrets).clean(text)


class Blotter:
    """Remove secrets from texts, in plain and in the encodings of other programs. Create it once for many texts."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        # The longest first: a form may contain another one.
        self._forms = sorted({form for each in secrets for form in _forms(each.reveal())}, key=len, reverse=True)
        self._by_start: dict[str, list[str]] = {}
        for form in self._forms:
            self._by_start.setdefault(form[:_START], []).append(form)

    def clean(self, text: str) -> str:
        """Return `text` without the secrets."""
        for form in self._forms if len(self._forms) <= _FEW else self._present_forms(text):
            text = text.replace(form, _BLOT)
        return text

    def document(self, value: Any) -> Any:
        """Return a JSON value with every string in it cleaned; member names stay."""
        if isinstance(value, dict):
            return {name: self.document(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.document(each) for each in value]
        return self.clean(value) if isinstance(value, str) else value

    def _present_forms(self, text: str) -> list[str]:
        """Return the forms that the text contains, in one pass over the text: faster with thousands of forms."""
        present = [form for form in self._forms if len(form) < _START and form in text]
        for at in range(len(text) - _START + 1):
            for form in self._by_start.get(text[at : at + _START], ()):
                if text.startswith(form, at):
                    present.append(form)
        return sorted(present, key=len, reverse=True)


_START = 8  # characters of the prefix by which a form is looked up
_FEW = 500  # up to so many forms, replacing them one by one is faster
_SHORTEST = 4  # characters of an encoded form: a shorter one would match everywhere
_PLAIN = re.compile(r"[A-Za-z0-9_-]*")


@functools.lru_cache(maxsize=64)
def _forms(value: str) -> frozenset[str]:
    """Return a secret in all its encodings. Cached, because a lab's secrets are removed from many texts."""
    forms = {form for form in _base64(value.encode()) if len(form) >= _SHORTEST}
    if not _PLAIN.fullmatch(value):
        import html

        quoted = shlex.quote(value)
        forms |= {
            # In URLs (RFC 3986), in HTML, in JSON, in Python, in a shell, in IMAP and in Dovecot's files.
            *(urllib.parse.quote(value, safe=""), urllib.parse.quote(value), urllib.parse.quote_plus(value)),
            *(html.escape(value), html.escape(value, quote=False), json.dumps(value)[1:-1]),
            *(json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1], quoted, quoted[1:-1]),
            re.sub(r"([\\\"])", r"\\\1", value),
            # xtext (RFC 3461, section 4), and the form in which Postfix logs non-ASCII characters.
            "".join(chr(b) if 33 <= b <= 126 and b not in b"+=" else f"+{b:02X}" for b in value.encode()),
            "".join(c if c.isascii() else "?" * len(c.encode()) for c in value),
        }
    return frozenset({value, *forms} - {""})


def _base64(value: bytes) -> Iterator[str]:
    """Yield its base64 forms (RFC 4648) for each offset in the encoded data: in PLAIN, it follows a user name."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value).decode()
        # Only the characters whose six bits all come from the value.
        form = encoded[(before * 8 + 5) // 6 : (before + len(value)) * 8 // 6]
        yield form
        yield form.translate(_URL_SAFE)


_URL_SAFE = str.maketrans("+/", "-_")


def write_private(path: Path, text: str) -> bool:
    """Write `text` to `path`, readable only by its owner (0600); return whether anything changed.

    The file is rewritten in place, never replaced: a container sees a bind-mounted file by its inode. Its modification
    time is set to a minute ago, or to a second after the previous one if that is later. Postfix waits until a file that
    it reads is no longer new (dict_load_file_xt). Dovecot reads a passwd-file again when its time differs, in whole
    seconds. Raises HostError, also for a symbolic link and for a file that is not only this user's.
    """
    data = text.encode()
    try:
        is_new = not os.path.lexists(path)
        with open(directories.open_file(path, os.O_RDWR | os.O_CREAT), "r+b") as file:
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


def blot_error(error: Exception, password: Secret) -> Exception:
    """Remove the password from an error with a server's reply, which may repeat it; return the error."""
    if isinstance(error, MailstackError):
        error.message, error.details = (blot(text, [password]) for text in (error.message, error.details))
    return error
