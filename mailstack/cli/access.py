"""The commands `logs`, `shell` and `secrets`."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import signal
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from mailstack.cli import stdio
from mailstack.cli.lifecycle import overlay_option
from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import Progress, json_option, print_json
from mailstack.errors import InputError
from mailstack.model import Command, Deadline

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine
    from mailstack.lab.running import RunningLab
    from mailstack.runner.local import Runner
    from mailstack.target.target import Target

_FOLLOW_SECONDS = 366 * 86400.0  # until the user stops it

# Not every image has bash, since an overlay can use any image.
_SHELL = ("sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")


@click.command()
@name_option
@click.option("-f", "--follow", is_flag=True, help="Print new lines as they are logged.")
@click.argument("services", nargs=-1, metavar="[SERVICE]…")
@json_option
def logs(engine: Engine, name: str, follow: bool, services: tuple[str, ...], as_json: bool) -> None:
    """Show the logs of services, by default of all, as far as they are kept.

    `status` lists the services. Each log is limited to 50 MB.
    """

    if as_json and follow:
        raise InputError("--json and --follow exclude each other", remedy="leave one of them out")
    lab = running_lab(name, engine)
    lab.check_names(services)
    containers = {s.name: s.container for s in lab.services() if not services or s.name in services}
    if as_json:
        clean = lab.blotter().clean
        lines = {service: clean(lab.engine.logs(each)).splitlines() for service, each in containers.items()}
        print_json({"lab": name, "logs": lines})
        return
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    with contextlib.closing(_followed(lab, containers) if follow else _past(lab, containers)) as printed:
        _show(lab, containers, printed, colour)
    engine.target.look()


def _past(lab: RunningLab, containers: Mapping[str, str]) -> Generator[tuple[str, str], None, None]:
    """Yield what containers have printed, line by line with service and time, the oldest first."""
    import heapq

    from mailstack.engine.following import TIME

    def read(service: str, container: str) -> Iterator[tuple[str, str]]:
        rest = b""
        for piece in lab.engine.read_log(container, None):
            *whole, rest = (rest + piece).split(b"\n")
            yield from ((service, line.decode(errors="replace")) for line in whole)
        if rest:
            yield service, rest.decode(errors="replace")

    yield from heapq.merge(*(read(*each) for each in containers.items()), key=lambda each: each[1][:TIME])


def _followed(lab: RunningLab, containers: Mapping[str, str]) -> Generator[tuple[str, str], None, None]:
    """Yield past lines and new ones, until the lab is removed."""
    with contextlib.closing(lab.engine.follow(containers, deadline=Deadline.after(_FOLLOW_SECONDS))) as lines:
        yield from filter(None, lines)


# Colours of the services' names, in order.
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue")


def _show(lab: RunningLab, names: Iterable[str], lines: Iterable[tuple[str, str]], colour: bool) -> None:
    """Print lines in the format of Compose, but without secrets, until the reader closes the output."""
    from mailstack.text.printable import printable

    width = max(map(len, names), default=0) + 2
    colours, clean = dict(zip(names, itertools.cycle(_COLOURS))), lab.blotter().clean
    for service, line in lines:
        name = f"{service}-1".ljust(width) + " | "
        text = printable(clean(line.partition(" ")[2]))
        click.echo(f"{click.style(name, fg=colours[service]) if colour else name}{text}", color=colour)
        if stdio.reader_gone():
            break


# Everything after SERVICE belongs to the command to run, including options.
@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@name_option
@click.option("--root", is_flag=True, help="Be root in the sender, too.")
@click.argument("service")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND…]")
def shell(engine: Engine, name: str, root: bool, service: str, words: tuple[str, ...]) -> None:
    """Open a shell in SERVICE, or run COMMAND there and return its exit code.

    In the sender you are its user `student`, who may use `sudo`; in every other
    service you are root.
    """
    from mailstack.model import STUDENT
    from mailstack.roles import Role
    from mailstack.runner.local import Local

    lab = running_lab(name, engine)
    lab.check_names([service])
    user = STUDENT if lab.service(service).role is Role.SENDER and not root else ""
    runner = Local()
    _attached(engine.target, runner, lab.compose(runner).shell(service, words or _SHELL, user))


def _attached(target: Target, runner: Runner, command: Command) -> NoReturn:
    """Run a command with this process's own streams; exit with its code, unless the connection to its host is lost."""
    code = runner.attach(command)
    target.look()
    sys.exit(passed_on(code))


def passed_on(code: int) -> int:
    """Return the exit code for a child's code, as a shell does; 0 if the reader of its output closed the pipe
    (SIGPIPE).
    """
    code = 128 - code if code < 0 else code
    return 0 if code == 128 + signal.SIGPIPE else code


@click.group()
def secrets() -> None:
    """Create, rotate or reveal the secrets of a lab."""


@secrets.command("init")
@click.argument("directory", type=click.Path(path_type=Path))
@overlay_option
@json_option
def init(directory: Path, overlays: tuple[Path, ...], as_json: bool) -> None:
    """Write secrets for plain Compose to DIRECTORY.

    Also write the configuration files that the containers mount. Passwords and
    certificates that already exist are kept.
    """
    from mailstack.definition import bundled
    from mailstack.lab import resolve
    from mailstack.target import target

    written = resolve.init_secrets(target.local(os.environ), directory, overlays)
    if as_json:
        print_json({"directory": str(directory.absolute()), "files": written})
        return
    click.echo(f"{len(written)} files are in {directory.absolute()}, readable only by you; next, for example:")
    variable = f"MAILSTACK_SECRETS={shlex.quote(str(directory.absolute()))}"
    click.echo(f"  {variable} docker compose -f {shlex.quote(str(bundled.compose_file('lab.yaml')))} up -d")


@secrets.command("rotate")
@name_option
@json_option
def rotate(engine: Engine, name: str, as_json: bool) -> None:
    """Change the relay user's password."""
    from mailstack.actions import credentials

    lab = running_lab(name, engine)
    with Progress() as show:
        user = credentials.rotate(lab, show)
    if as_json:
        print_json({"lab": name, "user": user})
    else:
        click.echo(f"the relay's user {user} has a new password; the old one is no longer valid")
        if lab.defined.blank:
            click.echo("its place in the sender's own sasl_passwd is not known: write it there by hand")


@secrets.command("reveal")
@name_option
@click.option("--login", is_flag=True, help="Print `user:password`, as in Postfix's sasl_passwd.")
@click.argument("account")
@json_option
def reveal(engine: Engine, name: str, login: bool, account: str, as_json: bool) -> None:
    """Print the password of ACCOUNT.

    ACCOUNT is an address, or `relay` for the relay user.
    """
    from mailstack.actions import credentials

    user, password = credentials.of(running_lab(name, engine), account)
    if as_json:
        print_json({"lab": name, "user": user, "password": password.reveal()})
    else:
        click.echo(f"{user}:{password.reveal()}" if login else password.reveal())
