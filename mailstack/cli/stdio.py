"""The standard streams of a command: writing to them never raises, and characters not in their encoding are replaced.

`prepare` is called once, before all other imports. A closed stream becomes /dev/null, so that no file that we open
gets its number. If the reader exits (`| head -1`), the disk is full or the terminal is closed, only the output ends,
not the work. `failure` returns the error afterwards.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import unicodedata
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# Replacements for characters that a stream's encoding does not have. All others become a question mark.
_ASCII = {
    **dict.fromkeys("“”„‟″«»", '"'),
    **dict.fromkeys("‘’‚′", "'"),
    **dict.fromkeys("‐‑‒–−", "-"),
    **dict.fromkeys("•●▪∙", "*"),
    **dict.fromkeys("\u00a0\u2007\u2009\u200a\u202f", " "),
    **{"—": "--", "…": "...", "→": "->", "←": "<-", "⇒": "=>", "·": "-", "×": "x", "÷": "/", "≥": ">=", "≤": "<="},
}
_LINES = {"─": "-", "━": "-", "═": "=", "│": "|", "┃": "|", "║": "|"}  # of boxes; their corners become pluses

# Our name for ASCII. For the name “ascii”, click would assume a wrong locale, and write UTF-8.
_PLAIN = "readable-ascii"


def readable(text: str) -> str:
    """Return `text` in ASCII: punctuation and lines become similar characters, every other character a `?`."""
    return "".join(c if c < "\x80" else _replacement(c) for c in text)


def _replacement(character: str) -> str:
    if found := _ASCII.get(character) or _LINES.get(character):
        return found
    if "\u2500" <= character < "\u2580":
        return "+"
    return "" if unicodedata.combining(character) else "?"


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Replace what a codec cannot encode: see codecs.register_error."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return readable(error.object[error.start : error.end]), error.end


def _lookup(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != _PLAIN:
        return None
    ascii_ = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_.encode,
        ascii_.decode,
        incrementalencoder=ascii_.incrementalencoder,
        incrementaldecoder=ascii_.incrementaldecoder,
        name=_PLAIN,
    )


class _Output(io.FileIO):
    """A file descriptor that keeps its first error in `failure`, and drops all later output."""

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        while self.failure is None:
            try:
                written: int | None = super().write(data)
            except OSError as error:
                self.failure = error
            else:
                if written is not None:
                    return written
                select.select([], [self], [])  # another process has made it non-blocking
        return memoryview(data).nbytes


class _Closed(io.FileIO):
    """Standard input of a process that was started without one: reading from it is an error, as for cat(1)."""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        raise OSError(errno.EBADF, "it is closed")

    def readall(self) -> bytes:
        raise OSError(errno.EBADF, "it is closed")


_stdout: _Output | None = None


def prepare() -> None:
    """Make the standard streams safe to use, in whatever state the process got them."""
    global _stdout
    codecs.register_error("readable", _replace)
    codecs.register(_lookup)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Closed(0, closefd=False)), "utf-8", "replace")
    _stdout, sys.stdout = _opened(1, sys.stdout)
    _, sys.stderr = _opened(2, sys.stderr)


def _opened(number: int, before: Any) -> tuple[_Output, TextIO]:
    output = _Output(number, "wb", closefd=False)
    encoding = before.encoding if before else "utf-8"
    if codecs.lookup(encoding).name == "ascii":
        encoding = _PLAIN
    by_line = number == 2 or bool(before and (before.line_buffering or before.write_through))
    text = io.TextIOWrapper(io.BufferedWriter(output), encoding, "readable", line_buffering=by_line)
    return output, text


def failure() -> OSError | None:
    """Return the error that ended standard output; None without one, and if the reader closed the pipe."""
    if _stdout is None:
        return None
    sys.stdout.flush()
    found = _stdout.failure
    return None if found is None or found.errno == errno.EPIPE else found


def reader_gone() -> bool:
    """Return whether standard output has failed or lost its reader. A command without an end exits then."""
    return _stdout is not None and _stdout.failure is not None


def unicode() -> bool:
    """Return whether standard output can show every character."""
    encoding = getattr(sys.stdout, "encoding", None)
    return encoding is None or encoding.lower().startswith("utf")
