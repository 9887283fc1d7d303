"""The command `check`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli.options import name_option
from mailstack.cli.output import (
    Progress,
    fill,
    json_option,
    need_writable,
    print_json,
    print_reason,
    progress_option,
    table,
)
from mailstack.errors import InputError
from mailstack.model import CheckResult, Verdict

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine


@click.command()
@name_option
@click.argument("ids", nargs=-1, metavar="[ID]…")
@click.option("--list", "listed", is_flag=True, help="List the checks without running them.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Also write the results as JUnit XML.")
@progress_option
@json_option
def check(
    engine: Engine, name: str, ids: tuple[str, ...], listed: bool, junit: Path | None, progress: str, as_json: bool
) -> None:
    """Run end-to-end checks on a lab: all, or those named by ID.

    ID is a check, or a family of checks such as `auth`. The exit code is 1 if
    a check fails.
    """
    from mailstack import checks
    from mailstack.report import results as report

    wanted = checks.select(ids)
    if listed:
        _list(wanted, as_json)
        return
    if junit is not None and not junit.absolute().parent.is_dir():
        raise InputError(f"{junit}: there is no such directory to write to")
    if junit is not None and junit.is_dir():
        raise InputError(f"{junit}: is a directory; name a file in it")
    if junit is not None:
        need_writable(junit)

    from mailstack.checks.bench import Bench
    from mailstack.lab import finishing
    from mailstack.lab.running import RunningLab

    started_at = time.monotonic()
    done: list[CheckResult] = []
    with Progress(progress) as show:

        def record(result: CheckResult) -> None:
            done.append(result)
            show.step(f"{len(done)} of {len(wanted)} checks: {result.id}")

        lab = RunningLab(name, engine)
        finishing.finish(lab, show)
        with Bench(lab) as bench:
            show(f"running {len(wanted)} checks")
            results = checks.run(bench, wanted, record)
    seconds = time.monotonic() - started_at
    if junit is not None:
        try:
            junit.write_text(report.as_junit(name, results, seconds), encoding="utf-8")
        except OSError as error:
            raise InputError(f"{junit}: cannot be written: {error.strerror}") from None
    if as_json:
        print_json(report.as_json(name, results))
    else:
        _print(results, seconds)
    sys.exit(1 if report.count(results, Verdict.FAIL) else 0)


def _list(wanted: list, as_json: bool) -> None:  # type: ignore[type-arg]
    if as_json:
        print_json({"checks": [{"id": each.id, "title": each.title, "source": each.source} for each in wanted]})
        return
    table(("id", "what it proves"), [(each.id, f"{each.title}  [{each.source}]") for each in wanted], flexible=1)


def _print(results: list[CheckResult], seconds: float) -> None:
    from mailstack.report import results as report

    table(
        ("", "id", "what it proves", "ms"),
        [(str(r.verdict), r.id, r.title, f"{r.milliseconds:.0f}") for r in results],
        flexible=2,
    )
    for result in results:
        if result.verdict is not Verdict.PASS:
            click.echo()
            click.echo(fill(f"{result.verdict}: {result.id} ({result.source})"))
            click.echo(fill(result.title, 2))
            print_reason(result.evidence)
    parts = [f"{report.count(results, verdict)} {word}" for verdict, word in _WORDS if report.count(results, verdict)]
    click.echo(f"\n{', '.join(parts)} in {seconds:.1f} s")


_WORDS = ((Verdict.PASS, "passed"), (Verdict.FAIL, "failed"), (Verdict.SKIP, "skipped"))
