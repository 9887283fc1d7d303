"""The next hop of a mail in a queue of a lab, and the setting that names it."""

from __future__ import annotations

from mailstack.actions.lab_settings import in_effect, output
from mailstack.lab.running import RunningLab
from mailstack.roles import Role


def of(lab: RunningLab, machine: str, recipient: str, relay: str = "") -> str:
    """Return the next hop of a mail on a machine, with the setting that names it; "" if it is not known.

    `relay` is the host that Postfix logged for the last delivery attempt, or "".
    """
    setting, value = "transport_maps", _mapped(lab, machine, recipient)
    if not value:
        setting = "relayhost" if machine in lab.defined.names(Role.SENDER) else "virtual_transport"
        value = in_effect(lab, machine, setting) or ""
    if not value:
        return relay
    source = f"{setting} on the machine {machine}"
    return f"{relay} ({source}: {value})" if relay and value != relay else f"{value} ({source})"


def _mapped(lab: RunningLab, machine: str, recipient: str) -> str:
    """Return the entry of transport_maps for a recipient's address or domain (transport(5)); "" if there is none."""
    if not (maps := in_effect(lab, machine, "transport_maps")):
        return ""
    domain = recipient.rpartition("@")[2]
    queries = (output(lab, machine, ["postmap", "-q", key, maps]) for key in (recipient, domain) if key)
    return next((found for found in queries if found), "")
