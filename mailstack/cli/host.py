"""The commands `doctor`, `provision` and `version`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mailstack import __version__
from mailstack.cli.options import host_option
from mailstack.cli.output import Progress, json_option, print_json, progress_option, table
from mailstack.errors import HostError, InputError, Interrupted, MailstackError
from mailstack.model import Json
from mailstack.text.printable import printable

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine
    from mailstack.host.doctor import Finding
    from mailstack.runner.local import Runner


@click.command()
@host_option
@json_option
def doctor(engine: Engine, as_json: bool) -> None:
    """Check whether this host has all that a lab needs, and what to do if not.

    The exit code is 3 if a lab cannot run.
    """
    from mailstack.host import doctor as examination
    from mailstack.runner.local import Local

    findings = examination.examine(Local(), engine)
    ready = examination.is_ready(findings)
    if as_json:
        print_json({"ready": ready, "findings": [finding.json() for finding in findings]})
    else:
        _print_findings(findings)
    sys.exit(0 if ready else HostError.exit_code)


def _print_findings(findings: list[Finding]) -> None:
    words = {True: "ok", False: "missing"}
    rows = [(f.name, words[f.ok] if f.required or f.ok else "later", f.found) for f in findings]
    table(("check", "", "found"), rows, flexible=2)
    for finding in findings:
        if not finding.ok and finding.remedy:
            click.echo(f"\n{finding.name} → {finding.remedy}")


@click.command()
@host_option
@click.option("--yes", is_flag=True, help="On a remote host: do not ask for confirmation.")
@progress_option
def provision(engine: Engine, yes: bool, progress: str) -> None:
    """Install and start a Docker engine, unless one answers.

    This works on Debian and Ubuntu, as root or with sudo. On other systems, say
    what to install. On a remote host, first show the steps and ask.
    """
    from mailstack.host import provision as provisioning
    from mailstack.host.machine import Facts, machine_of
    from mailstack.runner.local import Local

    machine = machine_of(engine.target, Local())
    user = printable(engine.target.user)  # the user name on the host

    def agree(facts: Facts, steps: list[provisioning.Step]) -> None:
        if not machine.name:
            return
        click.echo(f"On {machine.name} ({printable(facts.distribution)}), as {user}:")
        for number, step in enumerate(steps, 1):
            click.echo(f"  {number}. {step.title}\n     {provisioning.command_line(step)}")
        if not yes:
            _confirm("Do this?")

    with Progress(progress) as show:
        provisioning.provision(machine, show, confirm=agree)
    if engine.target.uses_sudo:
        click.echo(f"{user} is not in the group `docker` there: mailstack uses sudo to reach the engine")


def _confirm(question: str) -> None:
    """Ask for confirmation on the terminal. Raises an error that ends the command unless the user agrees."""
    if not sys.stdin.isatty():
        raise InputError(
            "nothing was done: there is no terminal for the confirmation", remedy="--yes skips the confirmation"
        )
    if not click.confirm(question):
        raise Interrupted("nothing was done")


@click.command()
@host_option
@json_option
def version(engine: Engine, as_json: bool) -> None:
    """Show the versions of mailstack, Python, Compose, the engine and the servers,
    and the digests of the images: all that is needed to reproduce a run."""
    from mailstack.runner.local import Local

    document, problem = versions(engine, Local())
    if problem:
        click.echo(f"mailstack: {problem.whole()}", err=True)
    if as_json:
        print_json(document)
        return
    for service, digest in document.pop("images", {}).items():
        document[f"image of {service}"] = digest
    for name, value in document.items():
        click.echo(f"{name:<17} {value or 'none'}")


def versions(engine: Engine, runner: Runner) -> tuple[Json, MailstackError | None]:
    """Return the versions of all that takes part, "" for unknown ones; and the error for the first unknown one."""
    import platform

    from mailstack.engine import compose
    from mailstack.images.versions import of_images

    document: Json = {"mailstack": __version__, "python": platform.python_version(), "compose": "", "engine": ""}
    try:
        document["compose"] = ".".join(map(str, compose.version_of(runner, compose.find(runner))))
        document["engine"] = str(engine.version().get("Version", ""))
        document |= of_images(engine)
    except MailstackError as error:
        return document, error
    return document, None
