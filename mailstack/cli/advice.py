"""Advice about a mail of a lab, as `trace`, `explain` and `queue` print it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from mailstack.cli.output import columns
from mailstack.roles import Role
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from mailstack.actions.repairs import Advice, Repair
    from mailstack.lab.running import RunningLab
    from mailstack.trace.journey import Journey

_MACHINES = {
    Role.SENDER: "the student's machine",
    Role.SUBMISSION: "the provider's mail server",
    Role.STORE: "the provider's mail store, with mailboxes and passwords",
    Role.MTA: "another mail server",
}


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
    """Print the setting that a failure is about, and the command that repairs it: each on a line, to be copied."""
    if repair is None:
        return
    value = repair.value or "(empty)"
    field("setting", f"{repair.setting} = {value}, in {repair.file} on the machine {repair.machine}")
    if not repair.command:
        return
    as_root = lab.line("shell", "--root", repair.run_on) if repair.run_on else ""
    where = f"on {repair.run_on}, as root: `{as_root}`" if repair.run_on else "on this computer"
    field("repair", f"{where}:")
    for command in repair.command.split("; "):
        click.echo(f"            {printable(command)}")
    if repair.again:
        field("then", "send the mail again: this one is not tried any more")


def words_of(journey: Journey, advice: Advice) -> list[str]:
    """Return the texts about a journey that name machines."""
    return [journey.sentence(), advice.next_hop, *(event.service for event in journey.events)]


def show_machines(lab: RunningLab, texts: Iterable[str]) -> None:
    """Print which machines do not run, and what the machines and relay users are that some texts name."""
    from mailstack.trace import event_text

    if stopped := [each for each in lab.services_with_missing() if not each.runs]:
        field("stopped", ", ".join(f"{each.name} ({each.state})" for each in stopped))
    named = {word for text in texts for word in re.findall(r"[\w-]+", text)}
    known = [each for each in lab.defined.services if each.name in named and each.role in _MACHINES]
    shown = [f"the machine {each.name} is {_MACHINES[each.role]}" for each in known if each.role]
    users = sorted(word for word in named if event_text.is_relay_user(word))
    shown += [f"{user} is the user as whom the student's machine logs in to the provider" for user in users]
    if shown:
        field("names", "; ".join(shown))
