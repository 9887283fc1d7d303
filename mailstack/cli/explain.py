"""The command `explain`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli.advice import field, show_machines, show_repair, show_waiting, words_of
from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import clock, fill, json_option, logs_option, print_json, table
from mailstack.errors import InputError
from mailstack.model import Json
from mailstack.text import hint
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from mailstack.actions.explaining import Explanation
    from mailstack.actions.repairs import Advice
    from mailstack.engine.engine import Engine
    from mailstack.failures import KnownFailure, Occurrence
    from mailstack.lab.running import RunningLab
    from mailstack.protocol.status_codes import Meaning
    from mailstack.trace.rotation import Rotated

# A reply code, inside a log line or at the start of a reply; and an enhanced status code anywhere.
_CODE = re.compile(r"(?:^|[:(] ?)([2-5]\d\d)(?=[ -])")
_ENHANCED = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?![\d.])")


@click.command()
@name_option
@click.argument("text", nargs=-1, metavar="[TEXT…|-]")
@logs_option
@click.option("--all", "everything", is_flag=True, help="Explain all failures in the logs of the lab.")
@click.option("--list", "listed", is_flag=True, help="List all known failures.")
@json_option
def explain(
    engine: Engine,
    name: str,
    text: tuple[str, ...],
    files: tuple[Path, ...],
    everything: bool,
    listed: bool,
    as_json: bool,
) -> None:
    """Explain known failures: their meaning, cause and remedy.

    TEXT is a log line or the reply of a server; - reads standard input. Without
    TEXT, explain why your last mail in the lab failed, and with --all every
    failure in its logs, except for those that `check` provoked.

    The exit code is 1 if TEXT is not known.
    """
    from mailstack import failures

    if len([given for given in (text, files, listed, everything) if given]) > 1:
        raise InputError("TEXT, --logs, --all and --list exclude each other", remedy="give one of them")
    if listed:
        _list(failures.ALL, as_json)
        return
    if text:
        _explain_text(_of_files([Path("-")]) if text == ("-",) else [" ".join(text)], as_json)
        return
    if files:
        _explain_log(_of_files(files), as_json=as_json)
        return

    _explain_lab(running_lab(name, engine), everything, as_json)


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
            field(code.code, f"{code.text}  [{code.source}]")
        if not seen:
            click.echo(f"no known failure; `{hint.line('explain', '--list')}` lists all")
    sys.exit(0 if seen else 1)


def _explain_lab(lab: RunningLab, everything: bool, as_json: bool) -> None:
    """Explain the failure of the user's last mail in a lab, or all failures."""
    from mailstack.actions import explaining, repairs, tracing

    with tracing.lab_lines(lab) as read:
        found = explaining.of_everything(read) if everything else explaining.of_last_mail(read, tracing.queued(lab))
        rotated = read.rotated
    now = time.time()
    advice = repairs.advice(lab, found.mail, now) if found.mail else repairs.Advice()
    if as_json:
        mail = found.mail and {**{key: found.mail.json(now)[key] for key in _MAIL_KEYS}, **advice.json()}
        print_json({**_document(found.failures, found.lines, (), rotated), "mail": mail, "older": found.older})
        return
    if everything:
        _show_log(found.failures, found.lines, rotated)
        return
    _show_mail(lab, found, advice, now)
    if found.older:
        count = "1 other known failure" if found.older == 1 else f"{found.older} other known failures"
        click.echo(f"\n{count} in the logs: `{lab.line('explain', '--all')}`")
    for lost in rotated:
        click.echo(lost.sentence())


_MAIL_KEYS = ("message_id", "from", "status", "sentence", "submitted", "hops", "recipients")


def _show_mail(lab: RunningLab, found: Explanation, advice: Advice, now: float) -> None:
    """Print the verdict on the user's last mail, and the failure that it names."""
    if found.mail is None:
        click.echo("no mail of yours is in the logs")
        return
    mail = found.mail
    when = f", {clock(mail.started)}" if mail.started else ""
    sender = "an unknown sender" if mail.sender is None else printable(mail.sender)
    click.echo(f"your last mail: from {sender}{when}")
    click.echo(fill(printable(mail.sentence(now)), 2))
    show_waiting(advice)
    for each in found.failures:
        click.echo()
        _show(each.failure)
        show_repair(lab, advice.repair)
        field("line", each.example)
    if not mail.arrived:
        show_machines(lab, words_of(mail, advice))
    if mail.arrived:
        click.echo("  it went well: there is nothing to explain")
    elif not found.failures:
        click.echo(f"  no known failure is in its log lines; `{hint.line('explain', '--list')}` lists all")


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
    _show_log(seen, count, rotated)


def _show_log(seen: Sequence[Occurrence], count: int, rotated: Sequence[Rotated]) -> None:
    for each in seen:
        _show(each.failure)
        times = "once" if each.count == 1 else f"{each.count} times"
        when = each.first if each.count == 1 else f"first {each.first}, last {each.last}"
        field("seen", f"{times}: {when}" if each.first else times)
        field("line", each.example)
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
    field("cause", failure.cause)
    field("remedy", failure.remedy)
    field("source", failure.source)
