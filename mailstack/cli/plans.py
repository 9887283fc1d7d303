"""The plans of `up --dry-run` and `down --dry-run`, as tables or as a JSON document."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mailstack.cli.output import print_json, table
from mailstack.model import Json

if TYPE_CHECKING:
    from mailstack.lab.steps import Plan
    from mailstack.target.target import Target

_WHAT, _WHY = 30, 25  # columns for the objects of a step, and for its cause
_NAMED = 8  # objects of a step that are named; more are counted


def print_plans(command: str, plans: Sequence[Plan], document: Json | None, target: Target) -> None:
    """Print plans as a document, or each as a table: step, objects, cause."""
    if document is not None:
        print_json(document)
        return
    for plan in plans:
        line = f"`{target.line(command, lab=plan.lab)}` would"
        rows = [(row.step, _folded(_named(row.concerns), _WHAT), _folded(row.cause, _WHY)) for row in plan.rows()]
        if plan.why:
            click.echo(f"lab “{plan.lab}” is stale: {plan.why}")
        click.echo(f"{line} do this:\n" if rows else f"{line} do nothing")
        if rows:
            table(("step", "what", "why"), rows)


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:_NAMED])} and {more} more"


def _folded(text: str, width: int) -> tuple[str, ...]:
    return tuple(textwrap.wrap(text, width, break_on_hyphens=False))
