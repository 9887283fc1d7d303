"""Advice about a mail of a lab, as `trace` and `explain` print it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from mailstack.cli.output import columns
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from mailstack.actions.repairs import Advice, Repair
    from mailstack.lab.running import RunningLab


def field(name: str, text: str) -> None:
    """Print `name` and its text, wrapped to the width of the terminal."""
    head = f"  {name:<7} "
    wrapped = textwrap.wrap(
        printable(text),
        columns(),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
    )
    click.echo("\n".join(wrapped))


def show_waiting(advice: Advice) -> None:
    """Print where a mail that waits is to go, and what it waits for."""
    if advice.next_hop:
        field("goes to", advice.next_hop)
    if advice.waits_for:
        field("waits", f"for {advice.waits_for}")


def show_repair(lab: RunningLab, repair: Repair | None) -> None:
    """Print the setting that a failure is about, and the command that repairs it."""
    if repair is None:
        return
    field("setting", f"{repair.setting} = {repair.value}, in {repair.file} on the machine {repair.machine}")
    if repair.command.startswith("mailstack "):
        field("repair", repair.command)
    elif repair.command:
        field("repair", f"{repair.command}  (in {lab.line('shell', repair.machine)})")
