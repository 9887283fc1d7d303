"""The way that a mail took, as legs from station to station: read from a journey's document."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailstack.model import Json

# Names that the lab's containers also have on the network.
STATIONS = {"backend": "dovecot"}

_RELAY = re.compile(r"^(?P<host>[^\[\],:]+)?(?:\[[^\]]*\])?(?::(?P<port>\d+))?")


@dataclass(frozen=True, slots=True)
class Leg:
    """From one station to the next."""

    origin: str  # a service; "" is the sender's user agent
    target: str  # a service; "" where the mail has not got further
    protocol: str  # SMTP, LMTP or "" for a hand-over inside a machine
    port: int | None
    tls: str  # protocol and cipher; "" where nothing was encrypted
    sasl_user: str
    reply: str  # what the target answered
    queue_id: str  # in the origin's queue; "" before the first
    arrived: float | None  # at the origin, milliseconds since submission
    left: float | None


def legs(journey: Json) -> list[Leg]:
    """The way, leg by leg. The first goes from the user agent to the first station that kept the mail."""
    hops = journey["hops"]
    if not hops:
        return []
    first = hops[0]
    local = first["service"] == "sender"
    tls, user = _security(journey, first["queue_id"], first["service"])
    way = [
        Leg("", first["service"], "" if local else "SMTP", None, "" if local else tls, user, "", "", None, None),
    ]
    for number, hop in enumerate(hops):
        after = next((later for later in hops[number + 1 :] if later["service"] == target_of(hop)[0]), None)
        target, port = target_of(hop)
        tls, _ = _security(journey, hop["queue_id"], hop["service"], sending=True)
        user = ""
        if after:
            there, user = _security(journey, after["queue_id"], after["service"])
            tls = tls or there
        way.append(
            Leg(
                hop["service"],
                target if hop["left_milliseconds"] is not None else "",
                "LMTP" if target == "dovecot" else "SMTP",
                port,
                tls,
                user,
                _reply(journey, hop),
                hop["queue_id"],
                hop["arrived_milliseconds"],
                hop["left_milliseconds"],
            )
        )
    return way


def target_of(hop: Json) -> tuple[str, int | None]:
    """The station and port of a hop's relay, which Postfix writes as `host[address]:port`."""
    found = _RELAY.match(next(iter(hop["relays"]), ""))
    if not found or not found["host"]:
        return "", None
    host = found["host"].partition(".")[0]
    return STATIONS.get(host, host), int(found["port"]) if found["port"] else None


def _security(journey: Json, queue_id: str, service: str, *, sending: bool = False) -> tuple[str, str]:
    """TLS and SASL user of a queue's mail: as it came in, or with `sending` as it was handed over."""
    events = [event for event in journey["events"] if event["queue_id"] == queue_id and event["service"] == service]
    if sending:
        return next((e["tls"] for e in events if e["tls"] and not e["sasl_user"] and ":" in (e["peer"] or "")), ""), ""
    came = [event for event in events if ":" not in (event["peer"] or "")]
    return next((e["tls"] for e in came if e["tls"]), ""), next((e["sasl_user"] for e in came if e["sasl_user"]), "")


def _reply(journey: Json, hop: Json) -> str:
    replies = [e["reply"] for e in journey["events"] if e["queue_id"] == hop["queue_id"] and e["reply"]]
    return replies[-1] if replies else ""
