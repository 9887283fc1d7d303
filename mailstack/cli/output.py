"""Output of commands: progress on standard error, answers on standard output, and the options that commands share."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from mailstack.cli import stdio
from mailstack.errors import InputError
from mailstack.text.printable import printable

# Print the answer as one document.
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


# How progress is shown on standard error.
progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "tty", "plain", "quiet"]),
    default="auto",
    help="Style of the progress.",
)


# Files to attach to a mail.
attach_option = click.option(
    "--attach",
    "attachments",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to attach. Repeatable.",
)


# Logs to read from files.
logs_option = click.option(
    "--logs",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Log file of any Postfix or Dovecot to read, also .gz; - reads standard input. Repeatable.",
)


def print_json(document: Any) -> None:
    """Print one document on standard output."""
    click.echo(to_json(document, indent=2))


def to_json(document: Any, indent: int | None = None) -> str:
    """Return a document as JSON. Non-printable characters are escaped, so that it cannot control a terminal.

    If standard output is not UTF-8, non-ASCII characters are escaped as well: the document is the same in any
    encoding.
    """
    text = json.dumps(document, indent=indent, ensure_ascii=not stdio.unicode())
    return _UNUSUAL.sub(lambda found: _escaped(found[0]), text)


_UNUSUAL = re.compile(r"[^ -~\n]")


@functools.cache
def _escaped(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


_WIDTH = 76  # columns of a progress line, without the dots


class Progress:
    """Shows progress on standard error: one line that changes on a terminal, a line for each step elsewhere."""

    def __init__(self, mode: str = "auto") -> None:
        if mode == "auto":
            mode = "tty" if sys.stderr.isatty() else "plain"
        self._mode = mode

    def __call__(self, text: str) -> None:
        if self._mode == "plain":
            click.echo(f"{printable(text)[:_WIDTH]} …", err=True)
        elif self._mode == "tty":
            width = min(_WIDTH, max(_error_columns() - 3, 1))  # a wrapped line could not be overwritten
            sys.stderr.write(f"\r\x1b[K{printable(text)[:width]} …")
            sys.stderr.flush()

    def step(self, text: str) -> None:
        """Show one of many small steps, on a terminal only."""
        if self._mode == "tty":
            self(text)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the terminal's line for the next output."""
        if self._mode == "tty":
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _error_columns() -> int:
    """Return the width of the terminal of standard error."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):  # it has just been closed
        return 80


def columns() -> int:
    """Return the width for the layout of answers: the terminal's, within limits; 80 without a terminal."""
    if not sys.stdout.isatty():
        return 80
    return min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)


# A narrower terminal wraps the lines itself. A wider one is taken for a mistake (COLUMNS=10**9).
_NARROWEST, _WIDEST = 20, 1000
_LEAST = 16  # columns that the flexible column of a table needs to be readable


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str | tuple[str, ...]]], *, flexible: int | None = None
) -> None:
    """Print a table, 80 columns wide without a terminal; the column `flexible` shrinks to fit.

    A cell of several lines is a tuple. If the columns do not fit, each row is printed as a list of its cells.
    """
    from rich.cells import cell_len

    texts = [
        [tuple(map(printable, (cell,) if isinstance(cell, str) else cell)) for cell in row] for row in (headings, *rows)
    ]
    widths = [max(cell_len(line) for cell in column for line in cell or ("",)) for column in zip(*texts, strict=True)]
    if flexible is not None:
        widths[flexible] = min(widths[flexible], _LEAST)
    if sum(widths) + 3 * (len(widths) - 1) > columns():
        _listed(texts)
    else:
        _drawn(texts, flexible)


def _listed(texts: Sequence[Sequence[tuple[str, ...]]]) -> None:
    """Print rows as lists: a line `heading: cell` for each cell, or more if it is long."""
    headings, *rows = texts
    for row in rows:
        for heading, cell in zip(headings, row, strict=True):
            label = f"{heading[0]}: " if heading[0] else ""
            for number, line in enumerate(cell):
                if line.strip():
                    click.echo(fill(f"{'' if number else label}{line.strip()}", 2 * bool(number)))
        click.echo()


def fill(text: str, indent: int = 0) -> str:
    """Return `text` wrapped to the width of the terminal; lines after the first are indented by two more columns."""
    margin = " " * indent
    return textwrap.fill(
        text, columns(), initial_indent=margin, subsequent_indent=f"{margin}  ", break_on_hyphens=False
    )


def print_reason(text: str) -> None:
    """Print why something failed; of a remedy (`→ command; command`), each command on a line, to be copied."""
    for line in text.splitlines():
        words, arrow, remedy = line.partition("→ ")
        if not arrow or words.strip():
            click.echo(textwrap.fill(printable(line), columns(), **_REASON))
            continue
        for number, command in enumerate(remedy.split("; ")):
            click.echo(f"    {' ' if number else arrow.strip()} {printable(command)}")


_REASON: dict[str, Any] = {"initial_indent": "  ", "subsequent_indent": "  ", "break_on_hyphens": False}


def _drawn(texts: Sequence[Sequence[tuple[str, ...]]], flexible: int | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    headings, *rows = texts
    line = box.SIMPLE_HEAD if stdio.unicode() else box.Box(str(box.SIMPLE_HEAD).replace("─", "-"), ascii=True)
    shown = Table(box=line, pad_edge=False, show_edge=False)
    for number, (heading,) in enumerate(headings):
        shown.add_column(heading, no_wrap=number != flexible, overflow="fold")
    for row in rows:
        shown.add_row(*[Text("\n".join(cell), style=_STYLES.get(cell[0], "")) for cell in row])
    Console(width=columns(), highlight=False).print(shown)


_STYLES = {
    "pass": "green",
    "fail": "bold red",
    "skip": "yellow",
    "ok": "green",
    "missing": "bold red",
    "running": "green",
    "healthy": "green",
    "unhealthy": "bold red",
    "exited": "bold red",
}


# Maximum size of a mail's text in bytes: several copies of it are in memory while a mail is composed.
_LONGEST_TEXT = 4_000_000


def text_of(body: str) -> str:
    """Return the text of a mail for the option `--body`: `-` is standard input. Raises InputError."""
    if body != "-":
        return body
    try:
        return standard_input().decode()
    except UnicodeDecodeError:
        raise InputError("the text on standard input is not in UTF-8", remedy="send it with --attach") from None


def standard_input() -> bytes:
    """Read the text on standard input. Raises InputError when it cannot be read, or is too long."""
    try:
        data = sys.stdin.buffer.read(_LONGEST_TEXT + 1)
    except OSError as error:
        raise InputError(f"standard input cannot be read: {error.strerror}") from None
    if len(data) > _LONGEST_TEXT:
        raise InputError("the text on standard input is longer than 4 MB", remedy="send it with --attach")
    return data


def need_writable(path: Path) -> None:
    """Check that a file can be written to, before the work whose result it is for. Raises InputError."""
    existed = path.exists()
    try:
        # With O_NONBLOCK, a FIFO without a reader is an error. Without it, opening one would block.
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666))
        if not existed:
            path.unlink()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be written: {reason}") from None


def clock(at: float | None) -> str:
    """Format a time, in seconds of the epoch, in this machine's time zone; "" if it is not known."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def human_size(size: int) -> str:
    """Format bytes for people: `999 B`, `1.2 KB`, `10 MB` (units of 1000)."""
    value, unit = float(size), "B"
    for larger in ("KB", "MB", "GB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.{int(unit != 'B' and value < 9.95)}f} {unit}"


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Parse a duration like `90s`, `30m`, `2h` or `1d` into seconds: the type of an option."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        value = float(number) * _UNITS[unit]
    except ValueError:
        value = 0
    if not 1 <= value <= 366 * 86400:
        raise click.BadParameter(f"{text!r} is not a duration; write 90s, 30m, 2h or 1d")
    return value
