"""The commands `send` and `reply`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli.mailboxes import NUMBER, one_mail
from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import attach_option, duration, json_option, print_json, text_of
from mailstack.model import Deadline, Json
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from mailstack.actions.sending import Letter, Sent
    from mailstack.engine.engine import Engine
    from mailstack.lab.running import RunningLab


@click.command()
@name_option
@click.option("--from", "sender", metavar="A", help="Sender: an account, or an alias of one.  [default: first account]")
@click.option(
    "--to", "recipients", multiple=True, metavar="B", help="Recipient. Repeatable.  [default: second account]"
)
@click.option("--subject", default="A mail from the lab", show_default=True, metavar="S", help="Subject.")
@click.option("--body", default="Hello from the lab.", metavar="TEXT", help="Text; - reads it from standard input.")
@attach_option
@click.option(
    "--via",
    type=click.Choice(["sender", "submission"]),
    default="submission",
    show_default=True,
    help="`mail -s` on the sender, which relays it; or submission to port 587.",
)
@click.option("--timeout", type=duration, default="15s", show_default=True, help="Time to wait for its arrival.")
@json_option
def send(
    engine: Engine,
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
    """Send a mail and wait until it is in the mailbox of each recipient.

    The exit code is 1 if the mail is refused or returned, or does not arrive in
    time. The message then gives the result for each recipient.
    """
    from mailstack.actions import sending

    lab = running_lab(name, engine)
    letter = sending.letter(lab.definition(), sender, recipients, subject, text_of(body), attachments)
    _send(lab, letter, via, Deadline.after(timeout), {} if as_json else None)


@click.command()
@name_option
@click.argument("address")
@click.argument("number", required=False, type=NUMBER)
@click.option("--body", required=True, metavar="TEXT", help="Text; - reads it from standard input.")
@attach_option
@click.option("--no-quote", is_flag=True, help="Do not quote the mail.")
@click.option("--timeout", type=duration, default="15s", show_default=True, help="Time to wait for its arrival.")
@json_option
def reply(
    engine: Engine,
    name: str,
    address: str,
    number: int | None,
    body: str,
    attachments: tuple[Path, ...],
    no_quote: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Reply to the mail NUMBER in the mailbox of ADDRESS, or to the newest.

    `inbox` shows the numbers. The reply goes from ADDRESS to the Reply-To or
    From of the mail, over submission. Like `send`, this command waits until the
    reply arrives.
    """
    from mailstack.actions import replying

    lab = running_lab(name, engine)
    mail = one_mail(lab, address, number)
    letter = replying.answer(
        lab.definition(),
        address,
        mail,
        text_of(body),
        attachments,
        quoted=not no_quote,
        otherwise=lab.line("send", "--to", "ADDRESS"),
    )
    answered = {"uid": mail.uid, "subject": letter.subject, "in_reply_to": mail.message_id}
    _send(lab, letter, "submission", Deadline.after(timeout), answered if as_json else None)


def _send(lab: RunningLab, letter: Letter, via: str, deadline: Deadline, document: Json | None) -> None:
    """Send a mail and print the result: as JSON, added to `document`, or as text without one."""
    from mailstack.actions import sending

    try:
        sent = sending.send(lab, letter, via, deadline)
    except sending.NotArrived as error:
        if document is not None:
            print_json({**error.sent.json(), **document})
        raise
    if document is not None:
        print_json({**sent.json(), **document})
    else:
        _print(sent, lab)


def _print(sent: Sent, lab: RunningLab) -> None:
    click.echo(f"{printable(sent.message_id)}")
    click.echo(f"from {sent.sender} via {sent.via} to {', '.join(sent.recipients)}")
    for address, milliseconds in sent.arrived.items():
        click.echo(f"in the mailbox of {address} after {milliseconds:.0f} ms")
    if not sent.arrived:
        command = lab.line("trace", "--last")
        click.echo(f"handed over: no recipient has a mailbox in the lab; `{command}` shows its path")
