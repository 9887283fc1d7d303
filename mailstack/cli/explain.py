"""explain."""

from __future__ import annotations

import heapq
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from mailstack.cli.output import json_option, name_option, print_json, printable, table
from mailstack.errors import InputError
from mailstack.model import Json

if TYPE_CHECKING:
    import gzip

    from mailstack.faults import Fault, Seen
    from mailstack.replies import Meaning
    from mailstack.running import RunningLab

# What is read of a line: nobody's servers write more, and a file without line ends stays within bounds.
_LONGEST_LINE = 65536
# How much of a running lab's logs is recent: lines of each service.
_RECENT_LINES = 20_000

# A reply's code where it stands in a log line, or at the start of a reply; and an enhanced code anywhere.
_CODE = re.compile(r"(?:^|[:(] ?)([2-5]\d\d)(?=[ -])")
_ENHANCED = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?![\d.])")


@click.command()
@name_option
@click.argument("text", nargs=-1, metavar="[TEXT…|-]")
@click.option(
    "--logs",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A log of any Postfix or Dovecot (also .gz), instead of a lab's.",
)
@click.option("--list", "listed", is_flag=True, help="All the failures that are known.")
@json_option
def explain(name: str, text: tuple[str, ...], files: tuple[Path, ...], listed: bool, as_json: bool) -> None:
    """Say what a failure means, and what to do about it.

    TEXT is a log line or a server's reply (- reads them from standard input);
    without it, what has gone wrong in the lab of late is explained.

    Exits with 1 when TEXT is not known.
    """
    from mailstack import faults

    if len([given for given in (text, files, listed) if given]) > 1:
        raise InputError("TEXT, --logs and --list are three questions", remedy="ask one at a time")
    if listed:
        _list(faults.ALL, as_json)
        return
    if text:
        lines = list(_read(sys.stdin.buffer)) if text == ("-",) else [" ".join(text)]
        _explain_text(lines, as_json)
        return
    if files:
        _explain_log(chain.from_iterable(_of_file(path) for path in files), as_json)
        return
    from mailstack.running import RunningLab

    _explain_log(_of_lab(RunningLab(name)), as_json)


def _explain_text(lines: list[str], as_json: bool) -> None:
    """One line or a few, each of them meant: what is not known is said, too."""
    from mailstack import faults

    found = faults.seen(lines)
    codes = list({code.code: code for line in lines for code in _codes(line)}.values())
    if as_json:
        print_json(_document(found, len(lines), codes))
    else:
        for each in found:
            _show(each.fault)
        for code in codes:
            _field(code.code, f"{code.text}  [{code.source}]")
        if not found:
            click.echo("This is no failure that is known; `mailstack explain --list` names those that are.")
    sys.exit(0 if found else 1)


def _explain_log(lines: Iterable[str], as_json: bool) -> None:
    from mailstack import faults

    count = 0

    def counted() -> Iterator[str]:
        nonlocal count
        for line in lines:
            count += 1
            yield line

    found = faults.seen(counted())
    if as_json:
        print_json(_document(found, count, []))
        return
    for each in found:
        _show(each.fault)
        times = "once" if each.count == 1 else f"{each.count} times"
        when = each.first if each.count == 1 else f"first {each.first}, last {each.last}"
        _field("seen", f"{times}: {when}" if each.first else times)
        _field("line", each.example)
        click.echo()
    known = f"{len(found)} known failures" if len(found) != 1 else "1 known failure"
    click.echo(f"{known if found else 'no known failure'} in {count} lines")


def _codes(text: str) -> list[Meaning]:
    """What the codes in a line say."""
    from mailstack import replies

    meanings = [replies.reply(int(code)) for code in _CODE.findall(text)]
    meanings += [replies.enhanced(code) for code in _ENHANCED.findall(text)]
    return [meaning for meaning in meanings if meaning]


# ── where lines come from ──────────────────────────────────────────────────────────────────────────────────────────


def _of_lab(lab: RunningLab) -> Iterator[str]:
    """The lab's logs in the order of time, each line with its service and its time in front."""

    def of(name: str, container: str) -> list[str]:
        log = lab.engine.logs(container, tail=_RECENT_LINES, timestamps=True)
        return [f"{name} | {line}" for line in log.splitlines()]

    logs = [of(service.name, service.container) for service in lab.services()]
    return heapq.merge(*logs, key=lambda line: line.partition(" | ")[2])


def _of_file(path: Path) -> Iterator[str]:
    """The lines of a file, packed or not, one at a time. Raises InputError."""
    import gzip
    import zlib

    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"  # RFC 1952, section 2.3.1
        with gzip.open(path) if packed else path.open("rb") as stream:
            yield from _read(stream)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InputError(f"{path}: is damaged: it ends, or goes wrong, in the middle of its packing") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read(stream: IO[bytes] | gzip.GzipFile) -> Iterator[str]:
    while line := stream.readline(_LONGEST_LINE):
        yield line.decode(errors="replace").rstrip("\r\n")


# ── what is said ───────────────────────────────────────────────────────────────────────────────────────────────────


def _list(known: Iterable[Fault], as_json: bool) -> None:
    if as_json:
        print_json({"failures": [_fault(fault) for fault in known]})
        return
    table(("id", "what it is"), [(fault.id, fault.title) for fault in known], flexible=1)


def _document(found: Iterable[Seen], lines: int, codes: Iterable[Meaning]) -> Json:
    return {
        "lines": lines,
        "failures": [
            {
                **_fault(each.fault),
                "count": each.count,
                "first": each.first,
                "last": each.last,
                "example": each.example,
            }
            for each in found
        ],
        "codes": [{"code": code.code, "text": code.text, "source": code.source} for code in codes],
    }


def _fault(fault: Fault) -> Json:
    return {
        "id": fault.id,
        "title": fault.title,
        "cause": fault.cause,
        "remedy": fault.remedy,
        "source": fault.source,
    }


def _show(fault: Fault) -> None:
    click.echo(click.style(f"{fault.id}: {fault.title}", bold=True))
    _field("cause", fault.cause)
    _field("remedy", fault.remedy)
    _field("source", fault.source)


def _field(name: str, text: str) -> None:
    """`name` and its text, in as many lines as the terminal's width makes of it."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 80
    head = f"  {name:<7} "
    wrapped = textwrap.wrap(printable(text), max(width, 40), initial_indent=head, subsequent_indent=" " * len(head))
    click.echo("\n".join(wrapped))
