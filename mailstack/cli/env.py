"""env."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from mailstack.cli.output import json_option, print_json
from mailstack.cli.where import name_option

if TYPE_CHECKING:
    from mailstack.engine import Engine


@click.command()
@name_option
@click.option("--account", metavar="ADDRESS", help="Whose mailbox.  [the lab's first]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["sh", "fish", "dotenv"]),
    default="sh",
    show_default=True,
    help="For `eval`, for `source`, or NAME=VALUE as it is.",
)
@click.option(
    "--trust", is_flag=True, help="SSL_CERT_FILE and NODE_EXTRA_CA_CERTS, too: trust the lab's CA, mostly it alone."
)
@json_option
def env(engine: Engine, name: str, account: str | None, form: str, trust: bool, as_json: bool) -> None:
    """Print variables that give any program what pytest's fixtures give.

    \b
    eval "$(mailstack env)"                 sh, bash, zsh
    mailstack env --format fish | source    fish
    mailstack env --format dotenv > FILE    docker run --env-file FILE

    SMTP_HOST, SMTP_PORT (STARTTLS), SMTPS_PORT, SMTP_USER and SMTP_PASSWORD
    are for submitting mail as any address of the lab's domains; IMAP_… and
    POP3_… for the mailbox of one account; MAIL_CA_FILE is the CA to trust.

    There are passwords among them, which hold as long as the lab does.
    """
    from mailstack import environment
    from mailstack.running import RunningLab

    lab = RunningLab(name, engine)
    account = account or lab.definition().addresses()[0]
    found = environment.variables(lab, account, trust=trust)
    if as_json:
        print_json({"lab": name, "account": account.lower(), "variables": environment.revealed(found)})
    else:
        # A file's name byte for byte, whatever the encoding of standard output: a program will look for it.
        sys.stdout.buffer.write(os.fsencode(f"{environment.written(found, form)}\n"))
