"""The command `account`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import Progress, json_option, print_json, table
from mailstack.errors import InputError
from mailstack.model import UNLIMITED

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine


@click.group()
def account() -> None:
    """Add, list and remove accounts of a running lab. No server restarts."""


@account.command("add")
@name_option
@click.argument("address")
@click.option("--quota", metavar="SIZE", help="Quota of its mailbox, such as 5M.  [default: the lab's]")
@json_option
def add(engine: Engine, name: str, address: str, quota: str | None, as_json: bool) -> None:
    """Add ADDRESS with a new password."""
    from mailstack.actions.accounts import Accounts
    from mailstack.definition.schema import to_bytes

    amount = None if quota is None else to_bytes(quota)
    if quota is not None and amount is None:
        raise InputError(f"{quota!r} is not a size from 1K to 1024G", remedy="write it like 5M")
    with Progress() as show, Accounts(running_lab(name, engine), show) as accounts:
        accounts.add(address, quota=amount)
    if as_json:
        print_json({"lab": name, "address": address.lower(), "quota": amount})
        return
    click.echo(f"{address.lower()} is an account of lab “{name}”; its password:")
    click.echo(f"  {engine.target.line('secrets', 'reveal', address.lower(), lab=name)}")


@account.command("list")
@name_option
@json_option
def list_(engine: Engine, name: str, as_json: bool) -> None:
    """List all accounts, of the definition and added."""
    from mailstack.actions.accounts import Accounts

    lab = running_lab(name, engine)
    added = {each.address for each in Accounts(lab).added()}
    every = [(each.address, each.quota, each.address in added) for each in lab.definition().accounts]
    if as_json:
        accounts = [{"address": address, "quota": quota, "added": later} for address, quota, later in every]
        print_json({"lab": name, "accounts": accounts})
        return
    limit = lab.definition().limits.mailbox_quota
    rows = [
        (address, _quota_text(limit if quota is None else quota), "added" if later else "")
        for address, quota, later in every
    ]
    table(("address", "quota", ""), rows, flexible=0)


def _quota_text(size: int) -> str:
    """Format bytes as in a definition: `100M`, in units of 1024."""
    if size == UNLIMITED:
        return "unlimited"
    for unit, each in (("G", 1024**3), ("M", 1024**2), ("K", 1024)):
        if size % each == 0:
            return f"{size // each}{unit}"
    return str(size)


@account.command("remove")
@name_option
@click.argument("address")
@json_option
def remove(engine: Engine, name: str, address: str, as_json: bool) -> None:
    """Remove an added ADDRESS and its mailbox."""
    from mailstack.actions.accounts import Accounts

    with Progress() as show, Accounts(running_lab(name, engine), show) as accounts:
        accounts.remove(address)
    if as_json:
        print_json({"lab": name, "address": address.lower()})
    else:
        click.echo(f"{address.lower()} is not an account of lab “{name}” any more")
