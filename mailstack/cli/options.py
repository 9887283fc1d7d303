"""Options for a command's lab and target, and the engine that the command works with.

The options only keep the user's words. The target is created when a command's body begins, so `--help` and mistakes
on the command line connect to no host.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from mailstack.errors import InputError, MailstackError

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine
    from mailstack.lab.running import RunningLab
    from mailstack.secret import Secret

_LAB = "mailstack.lab"  # key of a click context's `meta`: the lab that its command works on

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of the command: its words, its environment, and access to an engine."""

    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def engine(self, host: str, context: str) -> Engine:
        """Return the engine of the host over SSH, of the Docker context, or of this machine. Raises HostError."""
        from mailstack.engine.engine import Engine
        from mailstack.target.choice import choose

        return Engine(choose(self.environment, host=host, context=context, ask=ask))


def name_option(function: F) -> F:
    """Add `-n NAME` for the lab, and the options of the target. The engine is the function's first argument."""
    return host_option(
        click.option(
            "-n",
            "--name",
            default="lab",
            show_default=True,
            envvar="MAILSTACK_NAME",
            metavar="NAME",
            help="Name of the lab.",
        )(function)
    )


def host_option(function: F) -> F:
    """Add `--host HOST` and `--context NAME` for the target. The engine is the function's first argument."""
    options = (
        click.option(
            "--context", metavar="NAME", help="Docker context to use instead of --host (see `docker context ls`)."
        ),
        click.option(
            "--host",
            envvar="MAILSTACK_HOST",
            multiple=True,
            metavar="HOST",
            help="Docker host to use over SSH: ssh://user@machine[:port], or a Host of ~/.ssh/config."
            " Some commands accept several, also as @FILE.",
        ),
    )
    body: Any = on_target(function)
    for option in options:
        body = option(body)
    return body  # type: ignore[no-any-return]


def on_target(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call the function with the engine of the target; with several hosts, run the whole command once for each."""

    @functools.wraps(function)
    def command(host: tuple[str, ...], context: str | None, **options: Any) -> Any:
        click_context = click.get_current_context()
        launch = click_context.find_object(Launch) or Launch(tuple(sys.argv[1:]))
        hosts = _hosts(click_context, host)
        if len(hosts) > 1:
            from mailstack.cli import hosts as several

            sys.exit(several.run(hosts, launch.argv))
        engine = launch.engine(hosts[0] if hosts else "", context or "")
        try:
            return function(engine, **options)
        except MailstackError as error:
            if (lab := click_context.meta.get(_LAB)) and not isinstance(error, InputError):
                lab.name_idle_services(error)
            if (cause := engine.target.root_cause(error)) is error:
                raise
            raise cause from None

    return command


def _hosts(context: click.Context, hosts: tuple[str, ...]) -> list[str]:
    """Return the hosts over SSH that a command works on; none if the command line chooses a context instead."""
    if context.get_parameter_source("context") is ParameterSource.COMMANDLINE:
        if context.get_parameter_source("host") is ParameterSource.COMMANDLINE:
            raise InputError("--host and --context exclude each other", remedy="give one of them")
        return []
    if len(hosts) > 1 or any(each.startswith("@") for each in hosts):
        from mailstack.cli import hosts as several

        return several.expand(hosts)
    return list(hosts)


def running_lab(name: str, engine: Engine) -> RunningLab:
    """Return a lab, and print a note for each change that was interrupted in it. Raises InputError, EngineError."""
    from mailstack.lab import changes
    from mailstack.lab.running import RunningLab

    lab = RunningLab(name, engine)
    if context := click.get_current_context(silent=True):
        context.meta[_LAB] = lab
    for change in changes.unfinished(lab.directory.path, proofs=False):
        click.echo(f"mailstack: {change.sentence()}: {lab.line('up')} finishes or undoes it", err=True)
    return lab


def ask(question: str) -> Secret | None:
    """Ask for a password or passphrase on the terminal; return None without a terminal."""
    import getpass

    from mailstack.secret import Secret

    if not sys.stdin.isatty():
        return None
    return Secret(getpass.getpass(f"{question}: "))
