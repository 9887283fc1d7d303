"""The command `dialogue`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import (
    Progress,
    attach_option,
    columns,
    duration,
    json_option,
    need_writable,
    print_json,
    text_of,
)
from mailstack.errors import CheckFailed, HostError
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from mailstack.engine.engine import Engine
    from mailstack.protocol.transcript import Dialogue, Exchange


@click.command()
@name_option
@click.option(
    "--via",
    type=click.Choice(["submission", "smtp", "sender"]),
    default="submission",
    show_default=True,
    help="Port 587 with TLS and AUTH, port 25, or from the sender's MTA to its relay host.",
)
@click.option("--from", "sender", metavar="A", help="Sender.  [default: first account; an outside address for smtp]")
@click.option(
    "--to", "recipients", multiple=True, metavar="B", help="Recipient. Repeatable.  [default: second account]"
)
@click.option("--subject", default="A mail from the lab", show_default=True, metavar="S", help="Subject.")
@click.option("--body", default="Hello from the lab.", metavar="TEXT", help="Text; - reads it from standard input.")
@attach_option
@click.option("--svg", type=click.Path(path_type=Path), metavar="FILE", help="Draw a sequence diagram.")
@click.option("--timeout", type=duration, default="15s", show_default=True, help="Time limit.")
@json_option
def dialogue(
    engine: Engine,
    name: str,
    via: str,
    sender: str | None,
    recipients: tuple[str, ...],
    subject: str,
    body: str,
    attachments: tuple[Path, ...],
    svg: Path | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Send a mail and show the dialogue of client and server.

    Each command and reply is explained, with the section of the RFC.
    Credentials are masked. The exit code is 1 if the mail is refused.
    """
    from mailstack.actions import recording, sending
    from mailstack.model import Deadline

    if svg:
        need_writable(svg)
    lab = running_lab(name, engine)
    sender = recording.VISITOR if via == "smtp" and sender is None else sender
    letter = sending.letter(lab.definition(), sender, recipients, subject, text_of(body), attachments)
    with Progress() as progress:
        progress.step(f"sending a mail via {via}")
        recorded = recording.record(lab, letter, via, Deadline.after(timeout))
    if svg:
        _draw(svg, recorded.dialogue)
    if as_json:
        print_json(recorded.json())
    else:
        _show(recorded.dialogue)
    if recorded.refused:
        raise CheckFailed("; ".join(recorded.refused))


def _draw(path: Path, dialogue: Dialogue) -> None:
    from mailstack.report.figures.sequence import sequence

    try:
        path.write_text(sequence(dialogue.json()), encoding="utf-8")
    except OSError as error:
        raise HostError(f"{path}: cannot be written: {error.strerror}") from None


_SPEAKERS = {"client": ("C", "bold cyan"), "server": ("S", "bold green")}


def _show(dialogue: Dialogue) -> None:
    """Print every exchange: the time, the speaker, the lines unchanged, and below them the meaning."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=columns(), highlight=False)
    console.print(Text(printable(f"C  {dialogue.client}    S  {dialogue.server}")))
    console.print(Text("milliseconds", style="dim"))
    secured = signed = False
    for exchange in dialogue.exchanges:
        _print(console, exchange)
        if exchange.step == "tls" and exchange.code == 220 and not secured:
            secured = True
            of = f": {dialogue.tls.version}, {dialogue.tls.cipher}" if dialogue.tls else ""
            console.rule(Text(printable(f"TLS from here on{of}")), style="yellow")
        if exchange.code == 235 and not signed:
            signed = True
            console.rule(Text("authenticated from here on"), style="yellow")


_INDENT = 11  # columns before the lines of an exchange


def _print(console: Console, exchange: Exchange) -> None:
    import textwrap

    from rich.text import Text

    from mailstack.protocol.status_codes import extension

    speaker, style = _SPEAKERS[exchange.speaker]
    style = "bold red" if exchange.code and exchange.code >= 400 else style
    moment = "" if exchange.milliseconds is None else f"{exchange.milliseconds:.1f}"
    width = max(console.width - _INDENT, 20)
    for number, line in enumerate(exchange.lines):
        note = extension(line) if exchange.code == 250 and len(exchange.lines) > 1 else ""
        shown = printable(line)
        parts = textwrap.wrap(shown, width, drop_whitespace=False)
        for count, part in enumerate(parts or [""]):
            text = Text.styled(f"{moment:>7} {speaker:>2} " if not number + count else " " * _INDENT, "dim")
            text.append(part, style=style)
            if note and not count and len(part) + len(note) + 2 <= width:
                text.append(f"{note:>{width - len(part)}}", style="dim")
            text.rstrip()
            console.print(text, soft_wrap=True)
    explanation = f"{exchange.meaning} ({exchange.source})" if exchange.source else exchange.meaning
    for part in textwrap.wrap(printable(explanation), width):
        console.print(Text(" " * _INDENT + part, style="dim italic"), soft_wrap=True)
