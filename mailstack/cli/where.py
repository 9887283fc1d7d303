"""Which lab a command is about, and on which host."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from mailstack.errors import InputError

if TYPE_CHECKING:
    from mailstack.secret import Secret

F = TypeVar("F", bound=Callable[..., Any])


def name_option(function: F) -> F:
    """`-n NAME`: which lab; and `--host`: where it is."""
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
    """`--host HOST`, or `--context NAME`: which Docker host, where it is not this machine."""
    function = click.option(
        "--context",
        metavar="NAME",
        is_eager=True,  # before --host is looked at
        expose_value=False,
        callback=_use_context,
        help="Docker context to use instead of --host (see `docker context ls`).",
    )(function)
    return click.option(
        "--host",
        envvar="MAILSTACK_HOST",
        multiple=True,
        metavar="HOST",
        expose_value=False,
        callback=_use_host,
        help="Docker host to use over SSH: ssh://user@machine[:port], or a Host of ~/.ssh/config."
        " Some commands accept several, also as @FILE.",
    )(function)


def _use_host(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    if context.resilient_parsing:
        return
    from mailstack import hosting
    from mailstack.engine import over_ssh

    if context.get_parameter_source("context") is ParameterSource.COMMANDLINE:
        if context.get_parameter_source("host") is ParameterSource.COMMANDLINE:
            raise InputError("--host and --context each say where the lab is", remedy="give one of them")
        os.environ.pop(hosting.VARIABLE, None)  # which processes that this one starts would go by
        value = ()
    if not value:
        if url := over_ssh():
            hosting.use(url, _ask)
        return
    if len(value) > 1 or value[0].startswith("@"):
        from mailstack.cli import several

        found = several.named(value)
        if len(found) > 1:
            sys.exit(several.run(found, sys.argv[1:]))
        value = tuple(found)
    hosting.use(value[0], _ask)


def _use_context(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value and not context.resilient_parsing:
        os.environ["DOCKER_CONTEXT"] = value
        os.environ.pop("DOCKER_HOST", None)


def _ask(question: str) -> Secret | None:
    """The user's password or passphrase, from the terminal; None where there is none."""
    import getpass

    from mailstack.secret import Secret

    if not sys.stdin.isatty():
        return None
    return Secret(getpass.getpass(f"{question}: "))
