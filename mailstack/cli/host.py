"""doctor, provision, version."""

from __future__ import annotations

import sys

import click

from mailstack import __version__
from mailstack.cli.output import Progress, json_option, print_json, table
from mailstack.cli.where import host_option
from mailstack.errors import HostError, MailstackError


@click.command()
@host_option
@json_option
def doctor(as_json: bool) -> None:
    """Say of each thing that a lab needs whether it is there, and what to do.

    Exits with 3 when a lab could not be brought up.
    """
    from mailstack import doctor as examination
    from mailstack.engine import Engine
    from mailstack.runner import Local

    findings = examination.examine(Local(), Engine())
    ready = examination.fit(findings)
    if as_json:
        print_json(
            {
                "ready": ready,
                "findings": [
                    {
                        "name": finding.name,
                        "ok": finding.ok,
                        "required": finding.required,
                        "found": finding.found,
                        "remedy": "" if finding.ok else finding.remedy,
                    }
                    for finding in findings
                ],
            }
        )
    else:
        words = {True: "ok", False: "missing"}
        rows = [(f.name, words[f.ok] if f.required or f.ok else "later", f.found) for f in findings]
        table(("thing", "", "found"), rows, flexible=2)
        for finding in findings:
            if not finding.ok and finding.remedy:
                click.echo(f"\n{finding.name} → {finding.remedy}")
    sys.exit(0 if ready else HostError.exit_code)


@click.command()
@click.option("--progress", type=click.Choice(["auto", "tty", "plain", "quiet"]), default="auto")
def provision(progress: str) -> None:
    """Have a Docker engine: nothing to do where one answers, else install and start it.

    On Debian and Ubuntu, as root or with sudo; elsewhere it says what to install.
    """
    from mailstack import provision as setting_up
    from mailstack.runner import Local

    with Progress(progress) as show:
        setting_up.provision(Local(), show)


@click.command()
@host_option
@json_option
def version(as_json: bool) -> None:
    """The versions of mailstack, Python, Compose and the engine."""
    import platform

    from mailstack import compose
    from mailstack.engine import Engine
    from mailstack.runner import Local

    runner = Local()
    found = {"mailstack": __version__, "python": platform.python_version(), "compose": "", "engine": ""}
    try:
        found["compose"] = ".".join(map(str, compose.version_of(runner, compose.find(runner))))
        found["engine"] = str(Engine().version().get("Version", ""))
    except MailstackError as error:
        click.echo(f"mailstack: {error.message}", err=True)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name:<10} {value or 'none'}")
