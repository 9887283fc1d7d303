"""The command `experiment`."""

from __future__ import annotations

import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli.lifecycle import overlay_option
from mailstack.cli.options import host_option
from mailstack.cli.output import Progress, columns, json_option, print_json, progress_option, table
from mailstack.model import Json
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine


@click.command()
@host_option
@overlay_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the report to this folder: index.html and the evidence.",
)
@click.option("--keep", is_flag=True, help="Keep the lab for inspection.")
@progress_option
@json_option
def experiment(
    engine: Engine, overlays: tuple[Path, ...], out: Path | None, keep: bool, progress: str, as_json: bool
) -> None:
    """Run the whole experiment in a separate lab and report on it.

    The report shows the action, the expectation, the evidence and the verdict
    of each step. The exit code is 1 if a step fails. The lab is removed in any
    case, except with --keep.
    """
    from mailstack.experiment import folder
    from mailstack.experiment.performance import perform

    with Progress(progress) as show, folder.prepared(out) if out else nullcontext() as directory:
        outcome = perform(engine, overlays, keep, show)
        document = outcome.document
        if directory:
            show("writing the report")
            folder.write(directory, folder.contents(document, outcome.logs))
    if keep:
        click.echo(f"mailstack: the lab is kept: {engine.target.line('down', lab=outcome.lab)} removes it", err=True)
    if as_json:
        print_json(document)
    else:
        _print(document)
        if out:
            click.echo(f"report    {out / 'index.html'}")
    sys.exit(0 if document["verdict"] == "pass" else 1)


def _print(document: Json) -> None:
    table(
        ("", "what it shows", "s"),
        [(step["verdict"], step["title"], f"{step['seconds']:.1f}") for step in document["steps"]],
        flexible=1,
    )
    for step in document["steps"]:
        if step["verdict"] != "pass":
            click.echo(f"\nfail: {step['id']}")
            for line in (step["row"], *step["reason"].splitlines()):
                click.echo(textwrap.fill(printable(line), columns(), initial_indent="  ", subsequent_indent="  "))
    click.echo(f"\n{document['passed']} passed, {document['failed']} failed in {document['seconds']:.1f} s")
