"""The legs of a mail's journey, from service to service: read from a journey's document (docs/json.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mailstack.model import Json

# Names of the lab's containers on the network, in journeys of earlier versions.
OLD_NAMES = {"backend": "dovecot"}

_RELAY = re.compile(r"^(?P<host>[^\[\],:]+)(?:\[(?P<address>[^\]]*)\])?(?::(?P<port>\d+))?$")


@dataclass(frozen=True, slots=True)
class Leg:
    """One transfer of a mail, from a service to the next."""

    origin: str  # a service; "" for the user agent
    target: str  # a service, or a host outside the lab; "" if the mail got no further
    protocol: str  # SMTP, LMTP, or "" for a mail submitted on the machine itself
    port: int | None
    tls: str  # protocol and cipher; "" without encryption
    sasl_user: str
    reply: str  # the last reply of the target
    queue_id: str  # in the origin's queue; "" for the first leg
    kept: float | None  # milliseconds for which the origin kept the mail, if known
    local: bool = False  # over a Unix socket, which no network reaches


def legs(journey: Json) -> list[Leg]:
    """Return the legs of a journey. The first leads from the user agent to the first service that queued the mail.

    A notice to the sender is a separate mail, and left out.
    """
    hops = [hop for hop in journey["hops"] if not hop["notice"]]
    if not hops:
        return []
    return [_submission_leg(journey, hops[0]), *(leg for hop in hops for leg in _onward_legs(journey, hops, hop))]


def is_local(relay: str) -> bool:
    """Return whether Postfix names the path of a socket as the next hop's address: `mx.example.com[/run/lmtp]`."""
    found = _RELAY.match(relay)
    return bool(found and "/" in (found["address"] or ""))


def parse_relay(relay: str) -> tuple[str, int | None]:
    """Return the service and port that Postfix logs as `host[address]:port`; `none` and `local` are no service.

    With the path of a socket, Postfix logs its own host name; the service is Dovecot.
    """
    found = _RELAY.match(relay)
    if not found or found["host"] in ("none", "local", "virtual"):
        return "", None
    if is_local(relay):
        return "dovecot", None
    host = found["host"].partition(".")[0]
    return OLD_NAMES.get(host, host), int(found["port"]) if found["port"] else None


def _submission_leg(journey: Json, hop: Json) -> Leg:
    accepted = _accepted(journey, hop)
    protocol = "SMTP" if accepted else ""
    return Leg("", hop["service"], protocol, None, accepted.get("tls", ""), accepted.get("sasl_user", ""), "", "", None)


def _onward_legs(journey: Json, hops: list[Json], hop: Json) -> Iterator[Leg]:
    """Yield a leg for each service to which a hop handed the mail, or one without a target."""
    arrived, left = hop["arrived_milliseconds"], hop["left_milliseconds"]
    kept = None if arrived is None or left is None else left - arrived
    attempts = [event for event in _events_of(journey, hop) if event["kind"] == "attempt"]
    relays = [relay for relay in hop["relays"] if parse_relay(relay)[0]]
    if not relays or (left is None and not any(event["status"] == "sent" for event in attempts)):
        yield Leg(hop["service"], "", "", None, "", "", "", hop["queue_id"], kept)
        return
    for relay in relays:
        target, port = parse_relay(relay)
        after = next((later for later in hops[hops.index(hop) + 1 :] if later["service"] == target), None)
        accepted = _accepted(journey, after) if after else {}
        tries = [event for event in reversed(attempts) if event["peer"] == relay]
        tls = next((event["tls"] for event in tries if event["tls"]), "") or accepted.get("tls", "")
        reply = next((event["reply"] for event in tries if event["reply"]), "")
        protocol = "LMTP" if target == "dovecot" else "SMTP"
        user = accepted.get("sasl_user", "")
        yield Leg(hop["service"], target, protocol, port, tls, user, reply, hop["queue_id"], kept, is_local(relay))


def _events_of(journey: Json, hop: Json) -> list[Json]:
    """Return the events of a hop."""
    key = (hop["service"], hop["queue_id"])
    return [event for event in journey["events"] if (event["service"], event["queue_id"]) == key]


def _accepted(journey: Json, hop: Json) -> Json:
    """Return the event with which a hop accepted the mail over the network; empty if it was submitted on the machine
    itself.
    """
    return next((event for event in _events_of(journey, hop) if event["kind"] == "accepted"), {})
