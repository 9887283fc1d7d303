"""The command `load`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import Progress, duration, json_option, print_json, table
from mailstack.errors import CheckFailed, DeadlinePassed, HostError, InputError, Interrupted, Reported
from mailstack.text.durations import spoken
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine
    from mailstack.load.ledger import Outcome, Percentiles
    from mailstack.load.performance import LoadProgress


def per_second(text: str) -> float:
    """Parse messages per second: the type of an option."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0.01 <= value <= 1e6:
        raise click.BadParameter(f"{text!r} is not a number from 0.01 to 1,000,000")
    return value


@click.command()
@name_option
@click.option(
    "--connections", type=click.IntRange(1, 500), default=8, show_default=True, help="Connections at the same time."
)
@click.option("--messages", type=click.IntRange(min=1), metavar="N", help="Stop after N mails.")
@click.option("--seconds", type=duration, metavar="T", help="Stop after this time.  [default: 10, without --messages]")
@click.option("--size", default="2K", show_default=True, metavar="SIZE", help="Size of each mail, up to 100M.")
@click.option("--rate", type=per_second, metavar="R", help="Maximum of messages per second.  [default: no limit]")
@click.option(
    "--mailboxes",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="Number of mailboxes. They are new, and removed at the end.",
)
@click.option("--timeout", type=duration, default="60s", show_default=True, help="Time to wait for mail at the end.")
@json_option
def load(
    engine: Engine,
    name: str,
    connections: int,
    messages: int | None,
    seconds: float | None,
    size: str,
    rate: float | None,
    mailboxes: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Generate sustained load and account for every mail.

    Submit mails on port 587, with TLS and AUTH, to new mailboxes. Then
    look for every mail by its Message-ID. A mail that was accepted with 250
    and is found nowhere is lost. A mail that is found twice is doubled.

    The exit code is 1 if a mail was refused, lost or doubled, and 4 if some
    mail is still under way at the end.
    """
    from mailstack.definition.schema import to_bytes
    from mailstack.load import performance
    from mailstack.load.plan import SECONDS, Plan

    octets = to_bytes(size)
    if octets is None:
        raise InputError(f"{size!r} is not a size from 1K to 100M", remedy="write it like 2K")
    plan = Plan(
        connections=connections,
        messages=messages,
        seconds=SECONDS if messages is None and seconds is None else seconds,
        size=octets,
        rate=rate,
        mailboxes=mailboxes,
        patience=timeout,
    )
    with Progress() as show:
        outcome = performance.perform(running_lab(name, engine), plan, show.step, lambda now: show.step(live(now)))
    if as_json:
        print_json(outcome.json())
    else:
        print_outcome(outcome)
    if error := verdict(outcome):
        raise error


def live(now: LoadProgress) -> str:
    """Return the progress line of a running load."""
    sent = f"sent {now.sent:,} ({now.sent_per_second:,.0f}/s)"
    delivered = f"delivered {now.delivered:,} ({now.delivered_per_second:,.0f}/s)"
    return f"{sent} · {delivered} · {now.seconds:.0f} s"


def print_outcome(outcome: Outcome) -> None:
    """Print the outcome for people: a table, and below it everything that went wrong."""
    plan = outcome.plan
    over = f"{outcome.connected} connection{'s' if outcome.connected != 1 else ''}"
    to = f"{plan.mailboxes} mailbox{'es' if plan.mailboxes != 1 else ''}"
    click.echo(f"mails of {plan.size:,} bytes over {over} to {to}, {spoken(outcome.seconds)}\n")
    table(("", "messages", "per second", "p50", "p95", "p99", "longest"), _rows(outcome))
    problems = list(_problems(outcome))
    for line in ["", *problems] if problems else []:
        click.echo(printable(line))


def _rows(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    sent = len(outcome.accepted), outcome.sent_per_second, outcome.submission
    delivered = outcome.delivered, outcome.delivered_per_second, outcome.delivery
    for label, (count, rate, percentiles) in {"sent": sent, "delivered": delivered}.items():
        yield (label, f"{count:8,}", f"{rate:10,.1f}", *_times(percentiles))
    counts = {**_failed(outcome), "waiting": sum(outcome.waiting.values())}
    if outcome.unseen:
        counts["not looked for"] = outcome.unseen
    for label, number in counts.items():
        yield (label, f"{number:8,}", "", "", "", "", "")


def _failed(outcome: Outcome) -> dict[str, int]:
    return {
        "refused": sum(outcome.refused.values()),
        "lost": len(outcome.lost),
        "doubled": len(outcome.doubled),
    }


def _times(percentiles: Percentiles | None) -> tuple[str, ...]:
    if percentiles is None:
        return ("",) * 4
    every = (percentiles.p50, percentiles.p95, percentiles.p99, percentiles.maximum)
    return tuple(spoken(each / 1000).rjust(7) for each in every)


def _problems(outcome: Outcome) -> Iterator[str]:
    for reply, count in outcome.refused.items():
        yield f"refused {count:,} times: {reply}"
    for reason, count in outcome.waiting.items():
        yield f"{count:,} waiting: {reason}"
    for message_id, journey in outcome.journeys.items():
        yield f"lost: {message_id}: {journey}"
    for message_id, copies in list(outcome.doubled.items())[:3]:
        yield f"{copies} times there: {message_id}"
    yield from outcome.trouble


def verdict(outcome: Outcome) -> Reported | None:
    """Return the error that ends the command; None if every mail that was sent arrived exactly once."""
    if outcome.interrupted:
        return Interrupted("interrupted: what was sent until then is counted")
    if failed := [f"{count:,} {what}" for what, count in _failed(outcome).items() if count]:
        return CheckFailed(", ".join(failed))
    if outcome.waiting:
        count = sum(outcome.waiting.values())
        return DeadlinePassed(f"{count:,} still under way after {outcome.plan.patience:g} s")
    if outcome.trouble or outcome.unseen:
        return HostError("a part of the load could not be sent or checked")
    return None
