"""The command `explain`."""

from __future__ import annotations

import heapq
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import columns, json_option, logs_option, print_json, table
from mailstack.errors import InputError
from mailstack.model import Json
from mailstack.text import hint
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine
    from mailstack.failures import KnownFailure, Occurrence
    from mailstack.lab.running import RunningLab
    from mailstack.protocol.status_codes import Meaning
    from mailstack.trace.rotation import Rotated

# How many lines of each service's log count as recent in a running lab.
_RECENT_LINES = 20_000

# A reply code, inside a log line or at the start of a reply; and an enhanced status code anywhere.
_CODE = re.compile(r"(?:^|[:(] ?)([2-5]\d\d)(?=[ -])")
_ENHANCED = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?![\d.])")


@click.command()
@name_option
@click.argument("text", nargs=-1, metavar="[TEXT…|-]")
@logs_option
@click.option("--list", "listed", is_flag=True, help="List all known failures.")
@json_option
def explain(
    engine: Engine, name: str, text: tuple[str, ...], files: tuple[Path, ...], listed: bool, as_json: bool
) -> None:
    """Explain known failures: their meaning, cause and remedy.

    TEXT is a log line or the reply of a server; - reads standard input. Without
    TEXT, explain the recent failures in the logs of the lab.

    The exit code is 1 if TEXT is not known.
    """
    from mailstack import failures

    if len([given for given in (text, files, listed) if given]) > 1:
        raise InputError("TEXT, --logs and --list exclude each other", remedy="give one of them")
    if listed:
        _list(failures.ALL, as_json)
        return
    if text:
        _explain_text(_of_files([Path("-")]) if text == ("-",) else [" ".join(text)], as_json)
        return
    if files:
        _explain_log(_of_files(files), as_json=as_json)
        return

    _explain_log(*_of_lab(running_lab(name, engine)), as_json=as_json)


def _explain_text(lines: Iterable[str], as_json: bool) -> None:
    """Explain a few lines, each of which matters. Where no failure is known, explain the codes in them."""
    from mailstack import failures

    count, codes = 0, {}

    def counted() -> Iterator[str]:
        nonlocal count
        for line in lines:
            count += 1
            codes.update({code.code: code for code in _codes(line)})
            yield line

    seen = failures.find_failures(counted())
    if as_json:
        print_json(_document(seen, count, codes.values()))
    else:
        for each in seen:
            _show(each.failure)
        for code in codes.values() if count == 1 or not seen else ():
            _field(code.code, f"{code.text}  [{code.source}]")
        if not seen:
            click.echo(f"no known failure; `{hint.line('explain', '--list')}` lists all")
    sys.exit(0 if seen else 1)


def _explain_log(lines: Iterable[str], rotated: Sequence[Rotated] = (), *, as_json: bool) -> None:
    """Explain whole logs: each known failure once."""
    from mailstack import failures

    count = 0

    def counted() -> Iterator[str]:
        nonlocal count
        for line in lines:
            count += 1
            yield line

    seen = failures.find_failures(counted())
    if as_json:
        print_json(_document(seen, count, (), rotated))
        return
    for each in seen:
        _show(each.failure)
        times = "once" if each.count == 1 else f"{each.count} times"
        when = each.first if each.count == 1 else f"first {each.first}, last {each.last}"
        _field("seen", f"{times}: {when}" if each.first else times)
        _field("line", each.example)
        click.echo()
    known = "1 known failure" if len(seen) == 1 else f"{len(seen) or 'no'} known failures"
    click.echo(f"{known} in {count} lines")
    for lost in rotated:
        click.echo(lost.sentence())


def _codes(text: str) -> list[Meaning]:
    """Return the meanings of the codes in a line."""
    from mailstack.protocol import status_codes

    meanings = [status_codes.reply(int(code)) for code in _CODE.findall(text)]
    meanings += [status_codes.enhanced(code) for code in _ENHANCED.findall(text)]
    return [meaning for meaning in meanings if meaning]


# ── sources of lines ───────────────────────────────────────────────────────────────────────────────────────────────


def _of_lab(lab: RunningLab) -> tuple[Iterator[str], list[Rotated]]:
    """Return the lab's log lines in order of time, with service and time; and the logs that have lost lines by
    rotation.
    """
    from mailstack.trace import rotation

    logs, cut = [], []
    for service in lab.services():
        lines = lab.engine.logs(service.container, tail=_RECENT_LINES, timestamps=True).splitlines(keepends=True)
        if len(lines) < _RECENT_LINES:
            size = rotation.stored_size(line.encode() for line in lines)
            limits = rotation.limits(*lab.engine.log_options(service.container))
            cut.append(rotation.find_rotation(service.name, limits, size, lines))
        logs.append([f"{service.name} | {line.rstrip()}" for line in lines])
    return heapq.merge(*logs, key=lambda line: line.partition(" | ")[2]), [each for each in cut if each]


def _of_files(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the lines of files, compressed or not (- is standard input), one at a time. Raises InputError."""
    from mailstack.actions import tracing

    with tracing.file_lines(paths) as read:
        for _, line in read():
            yield line.rstrip("\r\n")


# ── output ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _list(known: Iterable[KnownFailure], as_json: bool) -> None:
    if as_json:
        print_json({"failures": [_failure_json(failure) for failure in known]})
        return
    table(("id", "description"), [(failure.id, failure.title) for failure in known], flexible=1)


def _document(
    found: Iterable[Occurrence], lines: int, codes: Iterable[Meaning], rotated: Iterable[Rotated] = ()
) -> Json:
    return {
        "lines": lines,
        "failures": [
            {
                **_failure_json(each.failure),
                "count": each.count,
                "first": each.first,
                "last": each.last,
                "example": each.example,
            }
            for each in found
        ],
        "codes": [{"code": code.code, "text": code.text, "source": code.source} for code in codes],
        "rotated": [each.json() for each in rotated],
    }


def _failure_json(failure: KnownFailure) -> Json:
    return {
        "id": failure.id,
        "title": failure.title,
        "cause": failure.cause,
        "remedy": failure.remedy,
        "source": failure.source,
    }


def _show(failure: KnownFailure) -> None:
    click.echo(f"{failure.id}: {failure.title}")
    _field("cause", failure.cause)
    _field("remedy", failure.remedy)
    _field("source", failure.source)


def _field(name: str, text: str) -> None:
    """Print `name` and its text, wrapped to the width of the terminal."""
    head = f"  {name:<7} "
    wrapped = textwrap.wrap(printable(text), columns(), initial_indent=head, subsequent_indent=" " * len(head))
    click.echo("\n".join(wrapped))
