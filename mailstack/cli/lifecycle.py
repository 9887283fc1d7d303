"""The commands `up`, `down` and `config`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli import stdio
from mailstack.cli.options import name_option
from mailstack.cli.output import Progress, columns, duration, json_option, print_json, progress_option, table
from mailstack.errors import InputError
from mailstack.model import Endpoint, Relay
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine
    from mailstack.lab.up import Report
    from mailstack.target.target import Target

_BLANK = "no mail was sent from the sender: it is yours to configure by hand (docs/by-hand.md)"

_HOW = {
    "submission": "STARTTLS, then AUTH",
    "submissions": "TLS, then AUTH",
    "smtp": "MX: no AUTH, no relaying",
    "imap": "STARTTLS",
    "imaps": "TLS",
    "pop3": "STLS",
    "pop3s": "TLS",
}

overlay_option = click.option(
    "-f",
    "--file",
    "overlays",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Overlay: a Compose file to lay over the definition. Repeatable.",
)


def _relay(context: click.Context, parameter: click.Parameter, value: str | None) -> Relay | None:
    from mailstack.definition.schema import port_number
    from mailstack.text.addresses import is_host

    if value is None:
        return None
    host, colon, port = value.rpartition(":")
    if not colon:
        host, port = value, "587"
    number = port_number(port)
    if not is_host(host) or number is None:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, like smtp.example.net:587")
    return Relay(host, number)


@click.command()
@name_option
@overlay_option
@click.option(
    "--blank/--no-blank",
    default=None,
    help="Leave the sender as Debian installs it, to configure by hand. By default, a lab stays as it was.",
)
@click.option("--relay", callback=_relay, metavar="HOST:PORT", help="Relay host outside the lab.")
@click.option(
    "--relay-credentials",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with `user:password` for the relay host. Only you may have permission to read it.",
)
@click.option(
    "--relay-ca",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="CA to trust for the relay host, in addition to Debian's.",
)
@click.option("--reset", is_flag=True, help="Create all containers anew: undo what was changed by hand.")
@click.option("--keep", is_flag=True, help="If `up` fails, keep what it made, for inspection.")
@click.option("--ttl", type=duration, metavar="DURATION", help="Remove the lab after this time, such as 30m or 2h.")
@click.option("--dry-run", is_flag=True, help="Show the steps and their causes; change nothing.")
@progress_option
@json_option
def up(
    engine: Engine,
    name: str,
    overlays: tuple[Path, ...],
    blank: bool | None,
    relay: Relay | None,
    relay_credentials: Path | None,
    relay_ca: Path | None,
    reset: bool,
    keep: bool,
    ttl: float | None,
    dry_run: bool,
    progress: str,
    as_json: bool,
) -> None:
    """Start a lab and prove it with two mails: by submission, and by the relay.

    If the lab already runs, apply the changes in its definition, and repair
    what does not work. Mail is kept, and so is what was changed by hand.
    """
    from mailstack.lab import up as lab

    if relay is None and (relay_credentials or relay_ca):
        raise InputError("--relay-credentials and --relay-ca need --relay", remedy="add --relay HOST:PORT")
    if relay is not None and relay_credentials is None:
        raise InputError(
            f"the relay {relay.host}:{relay.port} needs credentials", remedy="add --relay-credentials FILE"
        )
    request = lab.Request(name, overlays, relay, relay_credentials, relay_ca, keep, ttl, reset=reset, blank=blank)
    if dry_run:
        from mailstack.cli.plans import print_plans

        with Progress(progress) as show:
            steps = lab.dry_run(engine, request, show)
        print_plans("up", [steps], steps.json() if as_json else None, engine.target)
        return
    with Progress(progress) as show:
        report = lab.up(engine, request, show)
    for note in report.notes:
        click.echo(f"mailstack: {note}", err=True)
    if as_json:
        print_json(report.json())
    else:
        _print_report(report, engine.target)


def _print_report(report: Report, target: Target) -> None:
    click.echo(
        f"lab “{report.lab}” is up after {report.seconds['total']:.1f} s: "
        f"a mail crossed it in {report.verified.milliseconds:.0f} ms\n"
    )
    for number, row in enumerate(report.changes):
        print_list("" if number else "changed", [f"{row.step}: {', '.join(row.concerns)} ({row.cause})"])
    if report.changes:
        click.echo()
    print_endpoints(report.endpoints)
    click.echo()
    print_list("accounts", report.accounts)
    click.echo(f"CA        {report.ca_file}")
    if report.blank:
        print_list("blank", [_BLANK])
        click.echo(f"\nnext      {target.line('secrets', 'reveal', 'relay', '--login', lab=report.lab)}")
        click.echo(f"          {target.line('shell', 'sender', lab=report.lab)}")
        return
    click.echo(f"\nnext      {target.line('send', '--to', report.accounts[0], lab=report.lab)}")
    click.echo(f"          {target.line('check', lab=report.lab)}")


def print_endpoints(endpoints: Mapping[str, Endpoint]) -> None:
    """Print the published ports of a lab, and how a client uses each."""
    from mailstack.network.ports import loopback_name

    host = loopback_name()  # for people, whose clients may compare the name with the certificate's
    table(
        ("endpoint", "address", "how"),
        [(name, f"{host}:{endpoint.port}", _HOW[name]) for name, endpoint in endpoints.items()],
    )


_SHOWN = 40  # accounts shown: a lab may have ten thousand


def print_list(label: str, words: Sequence[str]) -> None:
    """Print words after a label, wrapped over several lines; only the first of them if there are too many."""
    import textwrap

    more = len(words) - _SHOWN
    shown = [*words[:_SHOWN], f"and {more:,} more"] if more > 1 else words
    text = textwrap.fill(", ".join(shown), min(columns(), 80) - 10, break_long_words=False, break_on_hyphens=False)
    click.echo(textwrap.indent(text, " " * 10).replace(" " * 10, f"{label:<10}", 1))


@click.command()
@name_option
@click.option("--all", "everything", is_flag=True, help="Remove all your labs on this engine.")
@click.option("--stale", is_flag=True, help="Remove labs that have expired or were left behind.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and why; change nothing.")
@progress_option
@json_option
def down(engine: Engine, name: str, everything: bool, stale: bool, dry_run: bool, progress: str, as_json: bool) -> None:
    """Remove a lab: containers, networks, volumes and secrets.

    --all removes all your labs, also those whose `up` was killed. --stale
    removes labs whose --ttl has passed, whose `up`, `down` or last lease holder
    was killed, and those of which only the files, or only the containers, are
    left. Neither removes the labs of other owners.
    """
    from mailstack.lab import down as removal
    from mailstack.lab import homes

    if everything and stale:
        raise InputError("--all removes what --stale does, and more", remedy="give one of them")
    if dry_run:
        from mailstack.cli.plans import print_plans

        with Progress(progress) as show:
            if everything or stale:
                plans = removal.dry_run_several(engine, show, stale=stale)
            else:
                plans = [removal.dry_run(engine, name, show)]
        document = {"plans": [plan.json() | {"why": plan.why} for plan in plans]}
        print_plans("down", plans, document if as_json else None, engine.target)
        return
    with Progress(progress) as show:
        if stale:
            removed = removal.remove_stale(engine, show)
        elif everything:
            removed = removal.remove_all(engine, show)
        else:
            removed = [name] if removal.down(engine, name, show) else []
    if as_json:
        print_json({"removed": removed})
    elif removed:
        click.echo(f"removed: {', '.join(removed)}")
    else:
        click.echo("nothing to remove")
        if not everything and not stale and (endpoints := homes.on_other_engines(homes.current(engine), name)):
            click.echo(f"mailstack: a lab “{name}” of yours is at {' and '.join(endpoints)}", err=True)


@click.command()
@name_option
@overlay_option
@json_option
def config(engine: Engine, name: str, overlays: tuple[Path, ...], as_json: bool) -> None:
    """Show the definition of a lab as Compose resolves it, with its overlays.

    Without -f, show the definition of the running lab, or the one that `up`
    would use.
    """
    from mailstack.lab import resolve

    document = resolve.resolved(engine, name, overlays)
    if as_json:
        print_json(document)
    else:
        import yaml

        for line in yaml.safe_dump(document, sort_keys=False, allow_unicode=stdio.unicode()).splitlines():
            click.echo(printable(line))
