"""The command `status`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from mailstack.cli.lifecycle import print_endpoints, print_list
from mailstack.cli.options import name_option, running_lab
from mailstack.cli.output import json_option, print_json, table
from mailstack.errors import CheckFailed, DeadlinePassed
from mailstack.model import Json

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine
    from mailstack.lab.proof import Verified
    from mailstack.lab.running import RunningLab
    from mailstack.model import ServiceState


@click.command()
@name_option
@click.option("--probe", is_flag=True, help="Also send the two mails that prove a lab.")
@json_option
def status(engine: Engine, name: str, probe: bool, as_json: bool) -> None:
    """Show services, addresses, ports and accounts of a lab, without passwords.

    The exit code is 1 if a service is not running, or is disconnected from one
    of its networks. If a mail of --probe fails, it is 1, or 4 after ten seconds.
    """
    from mailstack.lab import by_hand, proof

    lab = running_lab(name, engine)
    services = lab.services_with_missing()
    cut_off = _missing_networks(lab, services)
    edited = by_hand.edited(lab, services)
    verified, unproven = None, None
    if probe:
        try:
            verified = proof.probe(lab)
        except (CheckFailed, DeadlinePassed) as error:
            unproven = error
    if as_json:
        document = _document(lab, services, cut_off, edited)
        print_json(document | ({"verified": verified.whole_json() if verified else None} if probe else {}))
    else:
        _print(lab, services, cut_off, edited, verified)
    if unproven:
        raise unproven
    sys.exit(0 if all(service.runs for service in services) and not cut_off else 1)


def _missing_networks(lab: RunningLab, services: list[ServiceState]) -> dict[str, list[str]]:
    """Return service → networks that its running container is disconnected from, for each that is."""
    networks = {service.name: service.networks for service in lab.state.services}
    found = {
        service.name: [each for each in networks.get(service.name, ()) if not service.addresses.get(each)]
        for service in services
        if service.runs
    }
    return {name: missing for name, missing in found.items() if missing}


def _document(
    lab: RunningLab,
    services: list[ServiceState],
    cut_off: Mapping[str, list[str]],
    edited: Mapping[str, list[str]],
) -> Json:
    from mailstack.lab import changes
    from mailstack.lab.running import endpoints_json

    return {
        "lab": lab.name,
        "expires": lab.state.expires,
        "services": [
            {
                "name": service.name,
                "image": service.image,
                "state": service.state,
                "health": service.health,
                "addresses": dict(service.addresses),
                "missing_networks": cut_off.get(service.name, []),
                "ports": {str(inside): outside for inside, outside in service.ports.items()},
                "changed_by_hand": edited.get(service.name, []),
            }
            for service in services
        ],
        "endpoints": endpoints_json(lab.endpoints),
        "ca_file": str(lab.ca_file),
        "accounts": lab.definition().addresses(),
        "unfinished": [
            {"command": change.command, "since": change.since, "accounts": list(change.accounts)}
            for change in changes.unfinished(lab.directory.path, proofs=False)
        ],
    }


def _print(
    lab: RunningLab,
    services: list[ServiceState],
    cut_off: Mapping[str, list[str]],
    edited: Mapping[str, list[str]],
    verified: Verified | None,
) -> None:
    import datetime

    rows = [
        (
            service.name,
            service.state,
            service.health or "-",
            service.image.removeprefix("mailstack/") or "-",
            ", ".join(address for address in service.addresses.values() if address) or "-",
        )
        for service in services
    ]
    table(("service", "state", "health", "image", "addresses"), rows, flexible=4)
    click.echo()
    print_endpoints(lab.endpoints)
    click.echo()
    print_list("accounts", lab.definition().addresses())
    click.echo(f"CA        {lab.ca_file}")
    if lab.state.expires != "never":
        moment = datetime.datetime.fromtimestamp(int(lab.state.expires)).astimezone()
        click.echo(f"expires   {moment:%Y-%m-%d %H:%M:%S %Z}")
    for name, networks in cut_off.items():
        print_list("cut off", [f"{name} is not on {' and '.join(networks)}; `{lab.line('up')}` repairs it"])
    for name, paths in edited.items():
        print_list("by hand", [f"{name}: {path}" for path in paths])
    if verified:
        mails = {"by submission": verified, "from the sender": verified.relayed}
        print_list("probe", [f"{way} in {mail.milliseconds:.0f} ms" for way, mail in mails.items() if mail])
