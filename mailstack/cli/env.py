"""The command `env`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import json_option, print_json

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine


@click.command()
@name_option
@click.option("--account", metavar="ADDRESS", help="Account for IMAP and POP3.  [default: first account]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["sh", "fish", "dotenv"]),
    default="sh",
    show_default=True,
    help="For `eval`, for `source`, or NAME=VALUE without quotes.",
)
@click.option(
    "--trust",
    is_flag=True,
    help="Also print SSL_CERT_FILE and NODE_EXTRA_CA_CERTS: most programs then trust only the lab's CA.",
)
@json_option
def env(engine: Engine, name: str, account: str | None, form: str, trust: bool, as_json: bool) -> None:
    """Print environment variables to send and read mail from any program.

    \b
    eval "$(mailstack env)"                 sh, bash, zsh
    mailstack env --format fish | source    fish
    mailstack env --format dotenv > FILE    docker run --env-file FILE

    SMTP_HOST, SMTP_PORT (STARTTLS), SMTPS_PORT, SMTP_USER and SMTP_PASSWORD
    are for submission, from any address in the lab's domains. IMAP_… and
    POP3_… are for the mailbox of one account. MAIL_CA_FILE is the CA to trust.

    The variables contain passwords, which are valid as long as the lab exists.
    """
    from mailstack.actions import environment

    lab = running_lab(name, engine)
    account = account or lab.definition().addresses()[0]
    variables = environment.variables(lab, account, trust=trust)
    if as_json:
        print_json({"lab": name, "account": account.lower(), "variables": environment.revealed(variables)})
    else:
        # Write a file's name byte for byte, whatever the encoding of standard output: programs open the file by it.
        sys.stdout.buffer.write(os.fsencode(f"{environment.formatted(variables, form)}\n"))
