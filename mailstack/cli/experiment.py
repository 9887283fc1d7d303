"""The command `experiment`."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli.lifecycle import overlay_option
from mailstack.cli.options import host_option
from mailstack.cli.output import Progress, fill, json_option, print_json, print_reason, progress_option, table
from mailstack.errors import InputError
from mailstack.model import Json
from mailstack.report import failing

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine
    from mailstack.experiment.document import Performance


@click.command()
@host_option
@overlay_option
@click.option(
    "--on", "lab", metavar="LAB", help="Perform it on this lab, which is up, and judge what was set up there."
)
@click.option("--author", metavar="NAME", default="", help="Whose report it is; stands in it.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR|FILE.pdf",
    help="Write the report to this folder (index.html and the evidence), or to this file, printed by a browser.",
)
@click.option("--keep", is_flag=True, help="Keep the lab for inspection.")
@progress_option
@json_option
def experiment(
    engine: Engine,
    overlays: tuple[Path, ...],
    lab: str | None,
    author: str,
    out: Path | None,
    keep: bool,
    progress: str,
    as_json: bool,
) -> None:
    """Run the whole experiment and report on it.

    The report shows the action, the expectation, the evidence and the verdict
    of each step. The exit code is 1 if a step fails. The separate lab is removed
    in any case, except with --keep.

    With --on LAB, your own lab is judged: each setting of the course with its
    value in effect, and, where it is wrong, the reason and the remedy. Your
    configuration stays as it is; the experiment's mails are removed at the end.
    The provider's Postfix is stopped for a moment to see your queue keep a mail.
    """
    if lab is not None and (keep or overlays):
        raise InputError(f"--on and {'--keep' if keep else '-f'} exclude each other", remedy="leave one of them out")
    author = checked_author(author)

    with Progress(progress) as show, _written(out, show) as write:
        if lab is not None:
            from mailstack.experiment.own import perform_on

            outcome = perform_on(engine, lab, author, show)
        else:
            from mailstack.experiment.performance import perform

            outcome = perform(engine, overlays, keep, show, author)
        write(outcome)
    document = outcome.document
    if keep:
        click.echo(f"mailstack: the lab is kept: {engine.target.line('down', lab=outcome.lab)} removes it", err=True)
    if as_json:
        print_json(document)
    else:
        _print(document)
        if out:
            click.echo(f"report    {out if out.is_file() else out / 'index.html'}")
    sys.exit(0 if document["verdict"] == "pass" else 1)


def checked_author(name: str) -> str:
    """Return a name for the report. Raises InputError for one that is no line of text, or that reorders text."""
    name = name.strip()
    refused = [each for each in name if unicodedata.category(each) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")]
    if refused or any(unicodedata.bidirectional(each) in _REORDERING for each in name):
        raise InputError("--author has control characters in it: it should be one line of text")
    if len(name) > _LONGEST_AUTHOR:
        raise InputError(f"--author has {len(name)} characters: {_LONGEST_AUTHOR} are allowed at most")
    return name


_LONGEST_AUTHOR = 200
# Characters that show text in another order than it is in (UAX #9).
_REORDERING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@contextmanager
def _written(out: Path | None, show: Callable[[str], None]) -> Iterator[Callable[[Performance], None]]:
    """Yield what writes the report, after it is sure that it can be written. Raises InputError, HostError."""
    from mailstack.experiment import folder, pdf_file

    if out is None:
        yield lambda outcome: None
    elif pdf_file.is_pdf(out) and not out.is_dir():
        from mailstack.report import page, pdf
        from mailstack.runner.local import Local

        pdf_file.require_usable(out)
        browser = pdf.browser()

        def print_it(outcome: Performance) -> None:
            show("printing the report")
            pdf_file.write(out, pdf.printed(page.render(outcome.document, alone=True), browser, Local()))

        yield print_it
    else:
        with folder.prepared(out) as directory:

            def write_it(outcome: Performance) -> None:
                show("writing the report")
                folder.write(directory, folder.contents(outcome.document, outcome.logs))

            yield write_it


def _print(document: Json) -> None:
    judged = {row["step"] for row in document["settings"]}  # they take no time
    rows = []
    for number, step in enumerate(document["steps"], start=1):
        timeless = step["id"] in judged or step["blocked_by"]
        seconds = "–" if timeless else f"{step['seconds']:.1f}"
        rows.append((str(number), step["verdict"], step["title"], seconds))
    table(("row", "", "what it shows", "s"), rows, flexible=2)
    _print_failures(document["steps"])
    for each in document["left_out"]:
        title = fill(f"not performed: {each['title']}")
        click.echo(f"\n{title}")
        print_reason(each["reason"])
    click.echo(f"\n{document['passed']} passed, {document['failed']} failed in {document['seconds']:.1f} s")


def _print_failures(steps: list[Json]) -> None:
    """Print each cause and each remedy once, with the numbers of the rows that fail for it."""
    remedies: dict[str, int] = {}
    for failure in failing.failures(steps):
        title = fill(f"row {failure.number} failed: {failure.step['title']}")
        click.echo(f"\n{title}")
        problem, arrow, remedy = failure.reason.partition("\n→ ")
        first = remedies.setdefault(remedy, failure.number)
        shown = remedy if first == failure.number else f"the same as for row {first}"
        print_reason(f"{failure.step['row']}\n{problem}" + (f"{arrow}{shown}" if arrow else ""))
        if failure.same:
            rows = failing.spans([number for number, _ in failure.same])
            verb = "rows {} fail" if len(failure.same) > 1 else "row {} fails"
            print_reason(f"{verb.format(rows)} for the same cause as row {failure.number}")
