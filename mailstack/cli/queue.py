"""The command `queue`."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from mailstack.cli.advice import field, show_machines, show_repair
from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import Progress, columns, duration, json_option, print_json
from mailstack.errors import CheckFailed, DeadlinePassed, InputError
from mailstack.text.durations import spoken
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from mailstack.actions.queue_advice import Reason
    from mailstack.actions.queues import Entry
    from mailstack.engine.engine import Engine
    from mailstack.lab.running import RunningLab

_ACTIONS = ("list", "flush", "hold", "release", "delete", "wait")


@click.command()
@name_option
@click.argument("words", nargs=-1, metavar="[SERVICE] [ACTION] [ID]…")
@click.option("--all", "everything", is_flag=True, help="With hold, release and delete: all mails.")
@click.option(
    "--until",
    type=click.Choice(["empty", "deferred", "held"]),
    default="empty",
    show_default=True,
    help="With wait: no mail is left, one is deferred, one is on hold.",
)
@click.option("--timeout", type=duration, default="30s", show_default=True, help="With wait: time limit.")
@json_option
def queue(
    engine: Engine, name: str, words: tuple[str, ...], everything: bool, until: str, timeout: float, as_json: bool
) -> None:
    """List and manage mail that waits in the queues.

    SERVICE is an MTA of the lab, such as sender or postfix; by default all. ACTION is one of:

    \b
    list     show age, next hop, reason and repair of its failure (the default)
    flush    attempt delivery now: all deferred mails, or those named by ID
    hold     make no delivery attempts until mails are released
    release  take mails off hold
    delete   delete mails
    wait     wait until the queue is empty, or a mail is deferred or held

    The exit code of wait is 4 if the time limit passes first.
    """
    from mailstack.actions import queues

    lab = running_lab(name, engine)
    service, action, ids = parse_words(words, queues.services(lab.defined))
    if action == "list":
        _list(lab, service, as_json)
    elif action == "wait":
        _wait(lab, service, until, timeout, as_json)
    else:
        _act(lab, service, action, ids, everything, as_json)


def parse_words(words: Sequence[str], services: Sequence[str]) -> tuple[str | None, str, list[str]]:
    """Parse a command line into service, action and queue ids; `services` have a queue. Raises InputError."""
    rest = list(words)
    service = rest.pop(0) if rest and rest[0] in services else None
    action = rest.pop(0) if rest and rest[0] in _ACTIONS else "list"
    if rest and action in ("list", "wait"):
        remedy = f"actions: {', '.join(_ACTIONS)}; services with a queue: {', '.join(services)}"
        raise InputError(f"{action} does not take {rest[0]!r}", remedy=remedy)
    return service, action, rest


def _list(lab: RunningLab, service: str | None, as_json: bool) -> None:
    from mailstack.actions import queues

    where = queues.containers(lab, service)
    _warn_unseen(lab, service, where)
    found = queues.of(lab.engine, where)
    (_explain if found or as_json else _show)(lab, where, found, as_json)


def _act(lab: RunningLab, service: str | None, action: str, ids: list[str], everything: bool, as_json: bool) -> None:
    from mailstack.actions import queues

    if ids and everything:
        raise InputError("--all and queue ids exclude each other")
    if not ids and not everything and action != "flush":
        listing = lab.line("queue")
        raise InputError(f"{action} needs queue ids, or --all", remedy=f"{listing} lists them")
    where = queues.containers(lab, service)
    _warn_unseen(lab, service, where)
    found = queues.of(lab.engine, where)
    wanted = queues.chosen(found, ids, lab.line("queue")) if ids else found
    if action == "flush":
        held = [entry.queue_id for entry in wanted if entry.name == "hold"]
        if ids and held:
            release = lab.line("queue", "release", held[0])
            raise InputError(f"{held[0]} is on hold: no delivery is attempted", remedy=release)
        done = [entry for entry in wanted if entry.name != "hold"]
        queues.flush(lab.engine, where, done if ids else None)
        missed = []
    else:
        operation = queues.ACTIONS[action]
        requested = [entry for entry in wanted if operation.needs(entry)]
        done = queues.act(lab.engine, where, operation, requested)
        missed = [entry for entry in requested if entry not in done]
    if as_json:
        print_json({"lab": lab.name, "action": action, "done": _ids(done), "missed": _ids(missed)})
    else:
        for entry in done:
            click.echo(f"{entry.queue_id} in {entry.service} {_DONE[action]}")
        if not done and not missed:
            click.echo(f"no mail to {action}")
    if missed:
        missed_ids = ", ".join(entry.queue_id for entry in missed)
        raise CheckFailed(
            f"it is too late to {action} {missed_ids}: no longer in the queue",
            remedy=f"{lab.line('trace', missed[0].queue_id)} shows where it went",
        )


_DONE = {
    "flush": "is tried again now",
    "hold": "is on hold",
    "release": "is no longer on hold; `flush` tries it now",
    "delete": "is deleted",
}


def _ids(entries: Sequence[Entry]) -> list[dict[str, str]]:
    return [{"service": entry.service, "queue_id": entry.queue_id} for entry in entries]


def _wait(lab: RunningLab, service: str | None, until: str, timeout: float, as_json: bool) -> None:
    from mailstack.actions import queues
    from mailstack.model import Deadline

    deadline = Deadline.after(timeout)
    started_at = time.monotonic()
    where = queues.containers(lab, service)
    if until == "empty":  # a service that does not run cannot be known to have an empty queue
        for each in _unseen(lab, service, where):
            lab.service(each)
    with Progress() as show:
        show(f"waiting until {_GOALS[until]}")
        met, found = queues.wait(lab.engine, where, queues.CONDITIONS[until], deadline)
    seconds = time.monotonic() - started_at
    _show(lab, where, found, as_json, until=until, met=met, seconds=round(seconds, 3))
    if not met:
        raise DeadlinePassed(f"{_NOT_REACHED[until]} after {timeout:g} s")


_GOALS = {"empty": "the queue is empty", "deferred": "a mail is deferred", "held": "a mail is on hold"}
_NOT_REACHED = {"empty": "the queue is not empty", "deferred": "no mail is deferred", "held": "no mail is on hold"}


def _unseen(lab: RunningLab, service: str | None, where: dict[str, str]) -> list[str]:
    from mailstack.actions import queues

    return [each for each in queues.services(lab.defined) if service is None and each not in where]


def _warn_unseen(lab: RunningLab, service: str | None, where: dict[str, str]) -> None:
    for each in _unseen(lab, service, where):
        click.echo(f"{each} of lab “{lab.name}” is not running: its queue is not included", err=True)


def _show(lab: RunningLab, where: dict[str, str], found: Sequence[Entry], as_json: bool, **more: object) -> None:
    now, blotter = time.time(), lab.blotter()
    if as_json:
        shown = blotter.document([entry.json(now) for entry in found])
        print_json({"lab": lab.name, "services": list(where), **more, "mails": shown})
    elif found:
        for line in drawn(found, now, min(columns(), 80)):
            click.echo(blotter.clean(line))
    else:
        click.echo(f"no mail waits in {' and '.join(where)}")


def _explain(lab: RunningLab, where: dict[str, str], found: Sequence[Entry], as_json: bool) -> None:
    """Show mails with their next hops, and the failures that keep them, from the logs of the lab."""
    from mailstack.actions import queue_advice

    now, blotter = time.time(), lab.blotter()
    hops, reasons = queue_advice.hops(lab, found), queue_advice.reasons(lab, found, now)
    release = {each.queue_id: lab.line("queue", "release", each.queue_id) for each in found}
    waits = {each.queue_id: queue_advice.waits_for(each, now, release[each.queue_id]) for each in found}
    if as_json:
        mails = [
            {**each.json(now), "next_hop": hops[each.queue_id], "waits_for": waits[each.queue_id]} for each in found
        ]
        shown = blotter.document({"mails": mails, "reasons": [each.json() for each in reasons]})
        print_json({"lab": lab.name, "services": list(where), **shown})
        return
    notes = {name: [f"goes to {hop}"] * bool(hop) + [f"waits for {waits[name]}"] for name, hop in hops.items()}
    for line in drawn(found, now, min(columns(), 80), notes):
        click.echo(blotter.clean(line))
    for reason in reasons:
        _show_reason(lab, reason)
    click.echo()
    texts = [text for entry in found for text in (entry.service, *(each.reason for each in entry.recipients))]
    show_machines(lab, [*texts, *hops.values()])


def _show_reason(lab: RunningLab, reason: Reason) -> None:
    """Print a failure that keeps mails in a queue, and its repair."""
    names = list(reason.queue_ids[:_MOST])
    names += [f"{len(reason.queue_ids) - _MOST} more"] if len(reason.queue_ids) > _MOST else []
    click.echo(f"\n{reason.failure.id}: {reason.failure.title}")
    field("keeps", ", ".join(names))
    field("cause", reason.failure.cause)
    field("remedy", reason.failure.remedy)
    show_repair(lab, reason.advice.repair)


_HEADINGS = ("service", "queue id", "queue", "age", "bytes", "next try")
_MOST = 20  # recipients that are listed


def drawn(
    entries: Sequence[Entry], now: float, width: int = 80, notes: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Format a table: a row for each mail, and below it the envelope sender, the recipients, the reason of the delay,
    and what `notes` has about the queue id.
    """
    rows = [_row(entry, now) for entry in entries]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    heading = _aligned(_HEADINGS, widths)
    narrow = len(heading) > width
    lines = [] if narrow else [heading, "─" * len(heading)]
    for entry, row in zip(entries, rows, strict=True):
        lines += _wrapped(", ".join(row), 0, width) if narrow else [_aligned(row, widths)]
        by_reason: dict[str, list[str]] = {}
        for each in entry.recipients:
            by_reason.setdefault(each.reason, []).append(each.address)
        for reason, addresses in by_reason.items():
            named = addresses[:_MOST] + ([f"and {len(addresses) - _MOST} more"] if len(addresses) > _MOST else [])
            lines += _wrapped(f"{entry.sender or '<>'} → {', '.join(named)}", 2, width)
            lines += _wrapped(reason, 4, width)
        for note in (notes or {}).get(entry.queue_id, ()):
            lines += _wrapped(note, 4, width)
    return lines


def _row(entry: Entry, now: float) -> tuple[str, ...]:
    following = {"active": "now", "hold": "on release", "deferred": "soon"}.get(entry.name, "soon")
    if entry.next_try is not None and entry.next_try > now:
        following = f"in {spoken(round(entry.next_try - now))}"
    age = spoken(round(max(0.0, now - entry.arrived)))
    return entry.service, entry.queue_id, entry.name, age, str(entry.size), following


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        cell.rjust(width) if heading in ("age", "bytes") else cell.ljust(width)
        for cell, width, heading in zip(map(printable, cells), widths, _HEADINGS, strict=True)
    ).rstrip()


def _wrapped(text: str, indent: int, width: int) -> list[str]:
    return textwrap.wrap(printable(text), width, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))
