"""The legs of a mail's journey, from service to service: read from a journey's document (docs/json.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mailstack.model import Json

# Names of the lab's containers on the network, in journeys of earlier versions.
STATIONS = {"backend": "dovecot"}

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
    return (
        [*_submission(journey, hops[0]), *(leg for hop in hops for leg in _onward(journey, hops, hop))] if hops else []
    )


def is_local(relay: str) -> bool:
    """Return whether Postfix names the path of a socket as the next hop's address: `mx.example.com[/run/lmtp]`."""
    found = _RELAY.match(relay)
    return bool(found and "/" in (found["address"] or ""))


def station(relay: str) -> tuple[str, int | None]:
    """Return the service and port that Postfix logs as `host[address]:port`; `none` and `local` are no service.

    With the path of a socket, Postfix logs its own host name; the service is Dovecot.
    """
    found = _RELAY.match(relay)
    if not found or found["host"] in ("none", "local", "virtual"):
        return "", None
    if is_local(relay):
        return "dovecot", None
    host = found["host"].partition(".")[0]
    return STATIONS.get(host, host), int(found["port"]) if found["port"] else None


def _submission(journey: Json, hop: Json) -> Iterator[Leg]:
    came = _accepted(journey, hop)
    protocol = "SMTP" if came else ""
    yield Leg("", hop["service"], protocol, None, came.get("tls", ""), came.get("sasl_user", ""), "", "", None)


def _onward(journey: Json, hops: list[Json], hop: Json) -> Iterator[Leg]:
    """Yield a leg for each service to which a hop handed the mail, or one without a target."""
    arrived, left = hop["arrived_milliseconds"], hop["left_milliseconds"]
    kept = None if arrived is None or left is None else left - arrived
    attempts = [event for event in _of(journey, hop) if event["kind"] == "attempt"]
    reached = [relay for relay in hop["relays"] if station(relay)[0]]
    if not reached or (left is None and not any(event["status"] == "sent" for event in attempts)):
        yield Leg(hop["service"], "", "", None, "", "", "", hop["queue_id"], kept)
        return
    for relay in reached:
        target, port = station(relay)
        after = next((later for later in hops[hops.index(hop) + 1 :] if later["service"] == target), None)
        came = _accepted(journey, after) if after else {}
        there = [event for event in reversed(attempts) if event["peer"] == relay]
        tls = next((event["tls"] for event in there if event["tls"]), "") or came.get("tls", "")
        reply = next((event["reply"] for event in there if event["reply"]), "")
        protocol = "LMTP" if target == "dovecot" else "SMTP"
        user = came.get("sasl_user", "")
        yield Leg(hop["service"], target, protocol, port, tls, user, reply, hop["queue_id"], kept, is_local(relay))


def _of(journey: Json, hop: Json) -> list[Json]:
    """Return the events of a hop."""
    place = (hop["service"], hop["queue_id"])
    return [event for event in journey["events"] if (event["service"], event["queue_id"]) == place]


def _accepted(journey: Json, hop: Json) -> Json:
    """Return the event with which a hop accepted the mail over the network; empty if it was submitted on the machine
    itself.
    """
    return next((event for event in _of(journey, hop) if event["kind"] == "accepted"), {})
