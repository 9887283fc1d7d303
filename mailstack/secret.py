"""Values that must not be seen, and the files that they are kept in."""

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


# Gives the answer to a question of a host (a password, say); None if there is nobody to ask.
Ask = Callable[[str], Secret | None]


def new_password() -> Secret:
    """A fresh password of 24 characters (144 bits), safe in every file format that the lab uses.

    None begins with a dash: a user's program that is given it would take it for an option.
    """
    while (value := _random.token_urlsafe(18)).startswith("-"):
        pass
    return Secret(value)


def blot(text: str, secrets: Iterable[Secret]) -> str:
    """Return `text` without these secrets, in whatever form they may be shown: see Blotter."""
    return Blotter(secrets).clean(text)


class Blotter:
    """Takes secrets out of texts: as they are, and as programs encode them. Made once for many texts."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        # The longest first: a form may begin with another one.
        self._forms = sorted({form for each in secrets for form in _forms(each.reveal())}, key=len, reverse=True)
        self._by_start: dict[str, list[str]] = {}
        for form in self._forms:
            self._by_start.setdefault(form[:_START], []).append(form)

    def clean(self, text: str) -> str:
        """Return the text without the secrets."""
        for form in self._forms if len(self._forms) <= _FEW else self._there(text):
            text = text.replace(form, _BLOT)
        return text

    def document(self, value: Any) -> Any:
        """Return what JSON is made of with every text in it cleaned; names of members stay."""
        if isinstance(value, dict):
            return {name: self.document(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.document(each) for each in value]
        return self.clean(value) if isinstance(value, str) else value

    def _there(self, text: str) -> list[str]:
        """The forms that are in the text: with thousands, each place is looked at once rather than each form."""
        found = [form for form in self._forms if len(form) < _START and form in text]
        for at in range(len(text) - _START + 1):
            for form in self._by_start.get(text[at : at + _START], ()):
                if text.startswith(form, at):
                    found.append(form)
        return sorted(found, key=len, reverse=True)


_START = 8  # characters by which a form is looked up
_FEW = 500  # forms that are quicker looked for one by one
_SHORTEST = 4  # characters of an encoded form: less would be found everywhere
_PLAIN = re.compile(r"[A-Za-z0-9_-]*")


@functools.lru_cache(maxsize=64)
def _forms(value: str) -> frozenset[str]:
    """A secret as programs write it: kept, since a lab's secrets are taken out of many texts."""
    found = {form for form in _base64(value.encode()) if len(form) >= _SHORTEST}
    if not _PLAIN.fullmatch(value):
        import html

        quoted = shlex.quote(value)
        found |= {
            # In addresses of the web (RFC 3986), in HTML, in JSON, in Python, in a shell, in IMAP and Dovecot's files.
            *(urllib.parse.quote(value, safe=""), urllib.parse.quote(value), urllib.parse.quote_plus(value)),
            *(html.escape(value), html.escape(value, quote=False), json.dumps(value)[1:-1]),
            *(json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1], quoted, quoted[1:-1]),
            re.sub(r"([\\\"])", r"\\\1", value),
            # xtext (RFC 3461, section 4), and what Postfix logs of what is not ASCII.
            "".join(chr(b) if 33 <= b <= 126 and b not in b"+=" else f"+{b:02X}" for b in value.encode()),
            "".join(c if c.isascii() else "?" * len(c.encode()) for c in value),
        }
    return frozenset({value, *found} - {""})


def _base64(value: bytes) -> Iterator[str]:
    """What base64 makes of it (RFC 4648), wherever in what was encoded it begins: after a user's name, as in PLAIN."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value).decode()
        # The characters that the value alone decides: six bits each.
        form = encoded[(before * 8 + 5) // 6 : (before + len(value)) * 8 // 6]
        yield form
        yield form.translate(_URL_SAFE)


_URL_SAFE = str.maketrans("+/", "-_")


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
    """Take the password out of an error with a server's words: it may have repeated it."""
    if isinstance(error, MailstackError):
        error.message, error.details = (blot(text, [password]) for text in (error.message, error.details))
    return error
