"""The commands `inbox` and `read`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli import stdio
from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import columns, duration, fill, human_size, json_option, print_json, to_json
from mailstack.errors import DeadlinePassed, InputError
from mailstack.model import Deadline
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from imap_tools import BaseMailBox
    from rich.console import Console

    from mailstack.actions.mailboxes import Summary
    from mailstack.engine.engine import Engine
    from mailstack.lab.running import RunningLab
    from mailstack.message.message import Message

NUMBER = click.IntRange(1, 2**32 - 1)  # a UID: RFC 3501, section 2.3.1.1


@click.command()
@name_option
@click.argument("address")
@click.option("--watch", is_flag=True, help="Print new mails as they arrive, until Ctrl-C.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="With --watch: stop after N mails.")
@click.option(
    "--timeout", type=duration, help="With --watch: stop after this time; exit with 4 if fewer than N arrived."
)
@json_option
def inbox(
    engine: Engine, name: str, address: str, watch: bool, count: int | None, timeout: float | None, as_json: bool
) -> None:
    """List the mails in the mailbox of ADDRESS, oldest first.

    The number of a mail is its UID. It does not change while the mail is in
    the mailbox. `read` and `reply` accept it.
    """
    from mailstack.actions import mailboxes

    if (count or timeout) and not watch:
        raise click.UsageError("--count and --timeout need --watch")
    lab = running_lab(name, engine)
    if watch:
        _watch(lab, address, count, timeout, as_json)
        return
    with open_box(lab, address) as box:
        mails = mailboxes.summaries(box)
    if as_json:
        print_json({"lab": name, "address": address, "mails": [each.json() for each in mails]})
    elif mails:
        _list(_console(), mails)
    else:
        click.echo(f"the mailbox of {address} is empty")


def _watch(lab: RunningLab, address: str, count: int | None, timeout: float | None, as_json: bool) -> None:
    """Print each mail as it arrives."""
    deadline = Deadline.after(timeout) if timeout else None
    console = _console()
    arrived = 0
    with contextlib.closing(_arriving(lab, address, deadline)) as arriving:
        for summary in arriving:
            arrived += 1
            if as_json:
                click.echo(to_json(summary.json()))
            else:
                _show(console, summary)
            if arrived == count or stdio.reader_gone():
                return
    if count:
        raise DeadlinePassed(f"{arrived or 'none'} of {count} mails came to {address} within {timeout:g} s")


def _arriving(lab: RunningLab, address: str, deadline: Deadline | None) -> Generator[Summary]:
    from mailstack.actions import mailboxes

    with open_box(lab, address) as box:
        last = mailboxes.newest(box)
        click.echo(f"watching the mailbox of {address}: Ctrl-C ends it", err=True)
        yield from mailboxes.arrivals(box, last, deadline)


_HEADING = f"{'number':>6}  {'date':16}  from"


# A list with columns needs this width. In less, each mail takes several lines, wrapped where necessary.
_LEAST_COLUMNS = 50


def _list(console: Console, mails: list[Summary]) -> None:
    if console.width >= _LEAST_COLUMNS:
        console.print(f"{_HEADING}{'size':>{console.width - len(_HEADING)}}\n{'':8}subject — first words")
        console.print("─" * console.width)
    for summary in mails:
        _show(console, summary)


def _show(console: Console, summary: Summary) -> None:
    """Print two lines of the list: `number  date  from  size`, and below them the subject and the first words."""
    from rich.text import Text

    subject = printable(summary.subject) or "(no subject)"
    preview = " ".join(printable(summary.preview).split())
    if console.width < _LEAST_COLUMNS:
        click.echo(fill(f"{summary.uid}  {_local(summary.date)}  {human_size(summary.size)}"))
        click.echo(fill(printable(summary.sender), 2))
        click.echo(fill(f"{subject} — {preview}" if preview else subject, 2))
        return
    number, size = f"{summary.uid:>6}  {_local(summary.date):16}  ", f"  {human_size(summary.size)}"
    sender = Text(printable(summary.sender))
    sender.truncate(console.width - len(number) - len(size), overflow="ellipsis", pad=True)
    console.print(Text(number) + sender + Text(size))
    words = Text(f"{'':8}") + Text(subject, style="bold")
    if preview:
        words += Text(f" — {preview}")
    words.truncate(console.width, overflow="ellipsis")
    console.print(words)


def _console() -> Console:
    from rich.console import Console

    return Console(width=columns(), highlight=False, markup=False, emoji=False, no_color=None, soft_wrap=True)


def _local(when: datetime) -> str:
    """Format a date in this machine's time zone, which has no times before the year 1 and after 9999."""
    with contextlib.suppress(OverflowError, ValueError, OSError):
        when = when.astimezone()
    return f"{when:%Y-%m-%d %H:%M}"


@click.command()
@name_option
@click.argument("address")
@click.argument("number", required=False, type=NUMBER)
@click.option("--raw", is_flag=True, help="Print the mail byte for byte, as on the server.")
@click.option("--save", type=click.Path(path_type=Path), metavar="DIR", help="Save its attachments in DIR.")
@json_option
def read(
    engine: Engine, name: str, address: str, number: int | None, raw: bool, save: Path | None, as_json: bool
) -> None:
    """Show the mail NUMBER in the mailbox of ADDRESS, or the newest.

    `inbox` shows the numbers. --save keeps the name of an attachment, unless
    that name exists or is unsafe. It overwrites nothing, and writes nothing
    outside DIR. On a terminal, control characters are shown as `?`.
    """

    if raw and (save or as_json):
        raise click.UsageError("--raw excludes --save and --json")
    mail = one_mail(running_lab(name, engine), address, number)
    if raw:
        _raw(mail.raw)
        return
    saved = _save(mail, save) if save else []
    if as_json:
        document = mail.json()
        for attachment, path in zip(document["attachments"], saved, strict=False):
            attachment["path"] = str(path.absolute())
        print_json({"lab": name, "address": address, **document})
        return
    _print([*_lines(mail), *(f"saved as {path}" for path in saved)])


def _lines(message: Message) -> Iterator[str]:
    """Yield the lines of a mail for a reader: header, text, attachments."""
    for name in ("From", "To", "Cc", "Date", "Subject"):
        if value := message.field(name.lower()):
            yield f"{name}: {value}"
    yield ""
    yield from message.readable.splitlines()
    for part in message.attachments:
        name = message.name_of(part) or "without a name"
        yield f"[attachment: {name}, {part.type}, {human_size(len(message.content(part)))}]"
    yield from (f"[{note}]" for note in message.notes)


def _print(lines: list[str]) -> None:
    """Print all lines at once: a mail may have millions of them."""
    click.echo("\n".join(printable(line) for line in lines))


def _raw(data: bytes) -> None:
    if sys.stdout.isatty():
        _print(data.decode("utf-8", errors="replace").splitlines())
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _save(message: Message, directory: Path) -> list[Path]:
    from mailstack.message import attachments

    files = (
        (attachments.safe_name(message.name_of(part), part.type), message.content(part)) for part in message.attachments
    )
    return attachments.save(directory, files)


def open_box(lab: RunningLab, address: str) -> contextlib.AbstractContextManager[BaseMailBox]:
    """Open the mailbox of an account of the lab over IMAP. Raises InputError when there is no such account."""
    from mailstack.protocol import imap, trust

    return imap.mailbox(lab.endpoints["imaps"], trust.tls_context(lab.ca_file), address, lab.password(address))


def one_mail(lab: RunningLab, address: str, number: int | None) -> Message:
    """Return the mail with this UID, or the newest, from an account's mailbox. Raises InputError when there is none."""
    from mailstack.actions import mailboxes

    with open_box(lab, address) as box:
        mail = mailboxes.message(box, number)
    if mail is None:
        which = f"no mail with UID {number} is" if number else "no mail is"
        raise InputError(f"{which} in the mailbox of {address}", remedy=lab.line("inbox", address))
    return mail
