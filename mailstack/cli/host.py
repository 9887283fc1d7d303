"""doctor, provision, version."""

from __future__ import annotations

import sys

import click

from mailstack import __version__
from mailstack.cli.output import Progress, json_option, print_json, printable, table
from mailstack.cli.where import host_option
from mailstack.errors import HostError, InputError, Interrupted, MailstackError
from mailstack.model import Json


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
@host_option
@click.option("--yes", is_flag=True, help="On another host: do it without asking.")
@click.option("--progress", type=click.Choice(["auto", "tty", "plain", "quiet"]), default="auto")
def provision(yes: bool, progress: str) -> None:
    """Have a Docker engine: nothing to do where one answers, else install and start it.

    On Debian and Ubuntu, as root or with sudo; elsewhere it says what to install. On another host it shows
    first what it will do there, and asks.
    """
    from mailstack import hosting
    from mailstack import provision as setting_up
    from mailstack.machine import Facts, Here, There
    from mailstack.runner import Local

    there = hosting.current()
    with Progress(progress) as show:
        if there is None:
            setting_up.provision(Here(Local()), show)
            return
        user = printable(there.about["user"])  # as the host has it

        def agree(facts: Facts, steps: list[setting_up.Step]) -> None:
            click.echo(f"On {there.host} ({printable(facts.distribution)}), as {user}:")
            for number, step in enumerate(steps, 1):
                click.echo(f"  {number}. {step.title}\n     {setting_up.told(step)}")
            if not yes:
                _asked("Do this?")

        setting_up.provision(There(there), show, agree=agree)
    if there.about["way"] == "sudo":
        click.echo(f"{user} is not in the group `docker` there: mailstack gets to the engine by sudo")


def _asked(question: str) -> None:
    """Raise what ends the command, unless somebody at the terminal says yes."""
    if not sys.stdin.isatty():
        raise InputError("nothing was done: there is no terminal to ask at", remedy="--yes does it without asking")
    if not click.confirm(question):
        raise Interrupted("nothing was done")


@click.command()
@host_option
@json_option
def version(as_json: bool) -> None:
    """The versions of mailstack, Python, Compose, the engine and the servers, and
    the digests of the lab's images: what it takes to reproduce a run."""
    import platform

    from mailstack import compose, versions
    from mailstack.engine import Engine
    from mailstack.runner import Local

    runner = Local()
    found: Json = {"mailstack": __version__, "python": platform.python_version(), "compose": "", "engine": ""}
    try:
        found["compose"] = ".".join(map(str, compose.version_of(runner, compose.find(runner))))
        found["engine"] = str(Engine().version().get("Version", ""))
        found |= versions.of_images(Engine())
    except MailstackError as error:
        click.echo(f"mailstack: {error.whole()}", err=True)
    if as_json:
        print_json(found)
        return
    for service, digest in found.pop("images", {}).items():
        found[f"image of {service}"] = digest
    for name, value in found.items():
        click.echo(f"{name:<17} {value or 'none'}")
