"""send, inbox, read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli.output import duration, json_option, name_option, print_json, printable, table
from mailstack.errors import InputError

if TYPE_CHECKING:
    from imap_tools import MailAttachment, MailMessage


@click.command()
@name_option
@click.option("--from", "sender", metavar="A", help="An account of the lab, or an alias of one.  [first account]")
@click.option("--to", "recipients", multiple=True, metavar="B", help="Who gets it (may be repeated).  [second account]")
@click.option("--subject", default="A mail from the lab", show_default=True, metavar="S")
@click.option("--body", default="Hello from the lab.", metavar="TEXT", help="The text; - reads it from standard input.")
@click.option("--attach", "attachments", multiple=True, type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--via",
    type=click.Choice(["sender", "submission"]),
    default="submission",
    show_default=True,
    help="`mail -s` on the sender and its relay, or straight to port 587.",
)
@click.option("--timeout", type=duration, default="15s", show_default=True, help="How long to wait for its arrival.")
@json_option
def send(
    name: str,
    sender: str | None,
    recipients: tuple[str, ...],
    subject: str,
    body: str,
    attachments: tuple[Path, ...],
    via: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Send a mail, and wait until every mailbox of the lab that it is for has it."""
    from mailstack import post
    from mailstack.model import Deadline
    from mailstack.running import RunningLab

    lab = RunningLab(name)
    if body == "-":
        try:
            body = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise InputError("the text on standard input is not in UTF-8", remedy="send it with --attach") from None
    letter = post.letter(lab.definition, sender, recipients, subject, body, attachments)
    sent = post.send(lab, letter, via, Deadline.after(timeout))
    if as_json:
        print_json(sent.json())
        return
    click.echo(f"{printable(sent.message_id)}")
    click.echo(f"from {sent.sender} via {via} to {', '.join(sent.recipients)}")
    for address, milliseconds in sent.arrived.items():
        click.echo(f"in the mailbox of {address} after {milliseconds:.0f} ms")
    if not sent.arrived:
        click.echo("none of the recipients has a mailbox in the lab: its way is in `mailstack logs`")


@click.command()
@name_option
@click.argument("address")
@json_option
def inbox(name: str, address: str, as_json: bool) -> None:
    """List the mails in the mailbox of ADDRESS, oldest first."""
    from mailstack import mail
    from mailstack.running import RunningLab

    lab = RunningLab(name)
    with mail.mailbox(lab.endpoints["imaps"], mail.tls_context(lab.ca_file), address, lab.password(address)) as box:
        mails = list(box.fetch(mark_seen=False, bulk=True))
    if as_json:
        print_json({"lab": name, "address": address, "mails": [_summary(each) for each in mails]})
        return
    if not mails:
        click.echo(f"the mailbox of {address} is empty")
        return
    table(
        ("uid", "date", "from", "subject", "bytes"),
        [(m.uid or "", f"{m.date:%Y-%m-%d %H:%M}", m.from_, m.subject, str(m.size_rfc822)) for m in mails],
        flexible=3,
    )


@click.command()
@name_option
@click.argument("address")
@click.argument("uid", required=False, type=click.IntRange(1, 2**32 - 1))  # RFC 3501, section 2.3.1.1
@json_option
def read(name: str, address: str, uid: int | None, as_json: bool) -> None:
    """Show a mail in the mailbox of ADDRESS: the one with UID, or the newest."""
    from mailstack import mail
    from mailstack.running import RunningLab

    lab = RunningLab(name)
    with mail.mailbox(lab.endpoints["imaps"], mail.tls_context(lab.ca_file), address, lab.password(address)) as box:
        found = mail.by_uid(box, uid)
    if found is None:
        which = f"no mail with UID {uid} is" if uid else "no mail is"
        raise InputError(f"{which} in the mailbox of {address}", remedy=f"mailstack inbox {address}")
    if as_json:
        print_json({"lab": name, "address": address, **_whole(found)})
        return
    for label, value in (("From", found.from_), ("To", ", ".join(found.to)), ("Date", found.date_str)):
        click.echo(f"{label}: {printable(value)}")
    click.echo(f"Subject: {printable(found.subject)}\n")
    for line in (found.text or found.html).splitlines():
        click.echo(printable(line))
    for part in _attachments(found):
        click.echo(f"[attachment: {printable(part.filename)}, {part.content_type}, {len(part.payload)} bytes]")


def _attachments(message: MailMessage) -> list[MailAttachment]:
    """The parts that are for saving; mailutils gives the text a disposition, too (`inline`, RFC 2183)."""
    return [part for part in message.attachments if part.filename or part.content_disposition == "attachment"]


def _summary(message: MailMessage) -> dict[str, object]:
    return {
        "uid": int(message.uid or 0),
        "date": message.date.isoformat(),
        "from": message.from_,
        "to": list(message.to),
        "subject": message.subject,
        "bytes": message.size_rfc822,
        "message_id": "".join(dict(message.headers).get("message-id", ())),
    }


def _whole(message: MailMessage) -> dict[str, object]:
    return {
        **_summary(message),
        "headers": {name: list(values) for name, values in dict(message.headers).items()},
        "text": message.text,
        "html": message.html,
        "attachments": [
            {"name": part.filename, "type": part.content_type, "bytes": len(part.payload)}
            for part in _attachments(message)
        ],
    }
