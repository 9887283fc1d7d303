"""Attachments as files: saved under safe names in a given directory, without overwriting."""

from __future__ import annotations

import contextlib
import errno
import mimetypes
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePath

from mailstack.errors import InputError

LONGEST_NAME = 150  # bytes in UTF-8; most file systems allow 255, which leaves room for a number

# Special characters and device names of Windows and shells.
_SPECIAL = re.compile(r'[<>:"|?*\\/]')
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE | re.DOTALL)


def safe_name(name: str, kind: str = "") -> str:
    """Return a safe file name for an attachment; `kind` (image/png) gives the extension if `name` is unusable.

    The result is one printable path component. It is never hidden, no Windows device, and cannot be taken for an
    option.
    """
    name = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    name = "".join("_" if unicodedata.category(c)[0] in "CZ" and c != " " else c for c in name)
    name = _SPECIAL.sub("_", name).strip(" .")
    if re.match(r"[-~]", name) or _DEVICE.fullmatch(name):
        name = f"_{name}"
    if not name:
        name = "attachment" + (mimetypes.guess_extension(kind) or "")
    suffix = _cut(PurePath(name).suffix, 20).rstrip(" .")
    return _cut(PurePath(name).stem, LONGEST_NAME - len(suffix.encode())).rstrip(" .") + suffix


def _cut(text: str, most: int) -> str:
    """Return the beginning of `text`, at most `most` bytes in UTF-8."""
    return text.encode()[:most].decode(errors="ignore")


def save(directory: Path, files: Iterable[tuple[str, bytes]]) -> list[Path]:
    """Write each file (safe name, content) into `directory`, which is created if missing; return the paths.

    A name that exists already, as a file, a link or anything else, gets a number: `photo-2.png`. Raises InputError if
    the directory cannot be written to; OSError if the disk is full.
    """
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except (OSError, ValueError) as error:
        raise InputError(f"{directory}: no directory to save to: {_reason(error)}") from None
    tried: dict[str, int] = {}
    saved = []
    try:
        for name, content in files:
            saved.append(directory / _write(handle, directory, name, content, tried))
    finally:
        os.close(handle)
    return saved


def _write(handle: int, directory: Path, name: str, content: bytes, tried: dict[str, int]) -> str:
    while True:
        number = tried[name] = tried.get(name, 0) + 1
        free = name if number == 1 else f"{PurePath(name).stem}-{number}{PurePath(name).suffix}"
        try:
            os.fsencode(free)
        except UnicodeEncodeError:  # not valid in this locale's encoding: use UTF-8
            free = os.fsdecode(free.encode())
        try:
            # O_EXCL: a dangling link also counts as existing.
            file = os.open(free, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=handle)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise InputError(f"{directory}: cannot be written to: {_reason(error)}") from None
        try:
            with open(file, "wb") as opened:
                opened.write(content)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(free, dir_fd=handle)  # do not leave a partial file
            raise
        return free


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
