"""The command `trace`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli.advice import field, show_machines, show_repair, show_waiting, words_of
from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import clock, duration, fill, json_option, logs_option, print_json, table
from mailstack.errors import DeadlinePassed, InputError
from mailstack.model import Deadline, Json
from mailstack.text import hint
from mailstack.text.durations import spoken
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from mailstack.actions.tracing import Traced
    from mailstack.engine.engine import Engine
    from mailstack.lab.running import RunningLab
    from mailstack.trace.journey import Journey
    from mailstack.trace.rotation import Rotated

FOLLOW_SECONDS = 366 * 86400.0  # without --timeout, until the user stops it


@click.command()
@name_option
@click.argument("query", required=False, metavar="[MESSAGE-ID|QUEUE-ID|TEXT]")
@click.option("--last", is_flag=True, help="Show your last mail: no notice, and no mail of `check`.")
@logs_option
@click.option("-f", "--follow", is_flag=True, help="Show events as they happen, until the message is done.")
@click.option("--timeout", type=duration, default=None, help="Time limit for --follow.  [default: none]")
@json_option
def trace(
    engine: Engine,
    name: str,
    query: str | None,
    last: bool,
    files: tuple[Path, ...],
    follow: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Follow a message hop by hop and show its result.

    Name the message by its Message-ID, by a queue id, or by any TEXT in its log
    lines, such as an address. Without a name, list the latest messages, or
    with --follow, show the next message that arrives.

    The exit code is 1 if the message was not delivered.
    """
    from mailstack.actions import tracing

    if last and query:
        raise InputError("--last and a name exclude each other", remedy=f"leave out {query!r}, or --last")
    if follow and (files or last):
        raise InputError("only a message that is on its way in a lab can be followed", remedy="leave --follow out")
    lab = None
    if files:
        with tracing.file_lines(files) as read:
            traced = tracing.last_mail(read) if last else tracing.traced(read, query)
    elif follow:
        sys.exit(_follow(running_lab(name, engine), query, timeout, as_json))
    else:
        lab = running_lab(name, engine)
        traced = tracing.search_lab(lab, query, last=last)
    if not traced.journeys:
        where = "these logs" if files else f"the logs of lab “{name}”"
        raise InputError(
            f"no message in {where}" + (f" has {query!r} in its lines" if query else ""),
            details="\n".join(each.sentence() for each in traced.rotated),
        )
    logs = [word for file in files for word in ("--logs", str(file))]
    one = hint.line("trace", *logs, "QUEUE-ID") if files else engine.target.line("trace", "QUEUE-ID", lab=name)
    sys.exit(_show(traced, one, lab, as_json=as_json, listed=query is None and not last))


def _show(traced: Traced, one: str, lab: RunningLab | None, *, listed: bool, as_json: bool) -> int:
    now, journeys = time.time(), traced.journeys
    if as_json:
        print_json(_document(journeys, traced.more, traced.rotated, now))
    elif len(journeys) == 1 and not listed:
        _print_journey(journeys[0], traced.rotated, now)
        _print_verdict(journeys[0], lab, now)
    else:
        _list(journeys, traced.more, now, one)
        for each in () if listed else traced.rotated:
            click.echo(each.sentence())
    return 0 if listed or len(journeys) > 1 or journeys[0].arrived else 1


def _document(journeys: Sequence[Journey], more: bool, rotated: Sequence[Rotated], now: float) -> Json:
    return {
        "journeys": [journey.json(now) for journey in journeys],
        "more": more,
        "rotated": [each.json() for each in rotated],
    }


def _list(journeys: tuple[Journey, ...], more: bool, now: float, one: str) -> None:
    rows = []
    for journey in journeys:
        ids = [hop.queue_id for hop in journey.hops if not hop.notice]
        rows.append(
            (
                clock(journey.started),
                "\n".join(ids) or "–",
                f"{_sender(journey)}: {journey.sentence(now)}",
            )
        )
    table(("received", "queue ids", "result"), [_lines(row) for row in rows], flexible=2)
    if more:
        click.echo("… and earlier ones")
    click.echo(f"\n{one} shows one of them, hop by hop")


def _print_journey(journey: Journey, rotated: Sequence[Rotated], now: float) -> None:
    from mailstack.trace import event_text

    if journey.message_id:
        click.echo(f"<{printable(journey.message_id)}>")
    click.echo(f"from {_sender(journey)}, {clock(journey.started)}\n")
    rows = [
        (
            event_text.elapsed(event, journey),
            event.service,
            event.queue_id,
            event_text.describe(event, journey.message_id),
        )
        for event in journey.events
    ]
    table(("after", "service", "queue id", "what happened"), rows, flexible=3)
    for text in journey.missing:
        click.echo(f"not in the logs: {printable(text)}")
    for each in rotated if journey.incomplete else ():
        click.echo(each.sentence())


def _print_verdict(journey: Journey, lab: RunningLab | None, now: float) -> None:
    """Print the verdict, its cause and remedy; in a lab, also what the mail waits for, and the setting to repair."""
    from mailstack.actions import repairs

    click.echo(f"\n{fill(printable(journey.sentence(now)))}")
    advice = repairs.advice(lab, journey, now) if lab and not journey.arrived else repairs.Advice()
    show_waiting(advice)
    if journey.failure:
        field("failure", f"{journey.failure.id}: {journey.failure.title}")
        field("cause", journey.failure.cause)
        field("remedy", journey.failure.remedy)
    if lab:
        show_repair(lab, advice.repair)
        if not journey.arrived:
            show_machines(lab, words_of(journey, advice))


def _follow(lab: RunningLab, query: str | None, timeout: float | None, as_json: bool) -> int:
    from mailstack.actions import tracing
    from mailstack.trace import event_text

    shown: set[tuple[str, float | None, str]] = set()
    latest = None
    deadline = Deadline.after(timeout or FOLLOW_SECONDS)
    for journey in tracing.follow(lab, query, deadline):
        if journey is None:
            state = latest.sentence() if latest else "no message arrived"
            lost = _rotated(lab) if query else ()
            raise DeadlinePassed(
                f"after {spoken(deadline.seconds)}: {state}", details="\n".join(each.sentence() for each in lost)
            )
        latest = journey
        for event in journey.events:
            line = (event.service, event.at, event.line.text)
            if line not in shown and not as_json:
                shown.add(line)
                for text in event_text.lines(event, journey):
                    click.echo(printable(text))
    if latest is None:
        raise InputError("the lab stopped before the message arrived")
    if as_json:
        print_json(_document([latest], False, _rotated(lab), time.time()))
    else:
        _print_verdict(latest, lab, time.time())
    return 0 if latest.arrived else 1


def _rotated(lab: RunningLab) -> tuple[Rotated, ...]:
    from mailstack.actions import tracing

    with tracing.lab_lines(lab) as read:
        return read.rotated


def _sender(journey: Journey) -> str:
    """Return the envelope sender for people; no line has it of a mail that was aborted early."""
    return "an unknown sender" if journey.sender is None else printable(journey.sender or "<>")


def _lines(row: tuple[str, ...]) -> tuple[str | tuple[str, ...], ...]:
    return tuple(tuple(cell.split("\n")) if "\n" in cell else cell for cell in row)
