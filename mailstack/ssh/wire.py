"""The protocol between commands and the daemon: a JSON object per line over a Unix socket, errors included.

Either side may be killed in the middle of a line, so a line without its newline is ignored.
"""

from __future__ import annotations

import io
import json
from typing import TypeVar

from mailstack import errors
from mailstack.errors import HostError, MailstackError
from mailstack.model import Json

T = TypeVar("T")

# The longest line, in bytes: more than any command's output needs (`output.STDOUT_BYTES`, escaped).
LINE_BYTES = 1 << 29

_KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


class ProtocolError(Exception):
    """A line is no JSON object, or a value in it is missing or of another type."""


def send(stream: io.BufferedRWPair, document: Json) -> None:
    """Write one object. Raises OSError."""
    stream.write(json.dumps(document).encode() + b"\n")
    stream.flush()


def receive(stream: io.BufferedRWPair) -> Json | None:
    """Read one object. Return None when the other side has closed, even within a line. Raises Broken, OSError."""
    line = stream.readline(LINE_BYTES)
    if not line.endswith(b"\n"):
        return None
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(str(error)) from None
    if not isinstance(document, dict):
        raise ProtocolError(f"a {type(document).__name__}, where an object should be")
    return document


def value(document: Json, name: str, kind: type[T]) -> T:
    """Return a value of an object. Raises Broken when it is missing, or of another type."""
    content = document.get(name)
    if not isinstance(content, kind) or (isinstance(content, bool) and kind is not bool):
        raise ProtocolError(f"{name} is {content!r:.40}, where a {kind.__name__} should be")
    return content


def items(document: Json, name: str, kind: type[T]) -> list[T]:
    """Return a list of values of one type. Raises Broken."""
    content = value(document, name, list)
    if not all(isinstance(each, kind) for each in content):
        raise ProtocolError(f"{name} has something else in it than {kind.__name__}")
    return content


def error_document(error: Exception) -> Json:
    """Return an error as an object with all of its parts."""
    if not isinstance(error, MailstackError):
        error = HostError(f"the daemon that keeps the connection failed: {type(error).__name__}: {error}")
    kinds = (kind.__name__ for kind in type(error).__mro__ if _KINDS.get(kind.__name__) is kind)
    return {
        "error": error.message,
        "kind": next(kinds),
        "remedy": error.remedy,
        "details": error.details,
        "notes": error.notes(),
        "question": getattr(error, "question", ""),
    }


def error_of(document: Json) -> MailstackError:
    """Return the error that an object describes. Raises Broken."""
    kind = _KINDS.get(value(document, "kind", str))
    if kind is None or not issubclass(kind, MailstackError):
        raise ProtocolError(f"there is no error of the kind {document['kind']!r:.40}")
    error = kind(
        value(document, "error", str), remedy=value(document, "remedy", str), details=value(document, "details", str)
    )
    for note in items(document, "notes", str):
        error.add_note(note)
    return error
