"""Events of a journey as text."""

from __future__ import annotations

import re

from mailstack.text.durations import spoken
from mailstack.trace.events import Event
from mailstack.trace.journey import Journey, meaning


def describe(event: Event, message_id: str = "") -> tuple[str, ...]:
    """Return an event as lines: what happened, the connection, the reply and its meaning, and the delays."""
    recipient = event.recipient
    if event.original and event.kind == "attempt":
        recipient += f" (for {event.original})"
    head = event.what
    if event.kind == "attempt":
        passed_on = event.status == "sent" and event.next_id
        head = event.what.replace("sent", f"passed on, for {recipient}" if passed_on else f"sent to {recipient}", 1)
    elif event.kind == "accepted":
        head = f"accepted from {event.peer}"
    elif event.kind == "named" and event.message_id == message_id:
        head = "header read, with the Message-ID above"
    elif recipient and recipient not in head:
        head = f"{event.what}: {recipient}" if event.kind == "refused" else f"{event.what} of {recipient}"
    found = [head]
    connection = [f"{event.peer}{_socket(event.peer)}" if event.kind == "attempt" else "", event.tls]
    connection += [f"as {event.sasl_user}{_explained(event.sasl_user)}" if event.sasl_user else ""]
    if any(connection):
        found.append(", ".join(part for part in connection if part))
    if event.reply:
        found.append(event.reply)
    if event.status != "sent" and (explanation := meaning(event)):
        found.append(f"{event.enhanced or event.code} is: {explanation}")
    if any(event.delays):
        names = ("before the active queue", "in it", "connecting" if event.peer else "trying to connect", "sending")
        parts = [f"{spoken(value)} {what}" for value, what in zip(event.delays, names, strict=True) if value]
        found.append(", ".join(parts))
    return tuple(found)


def lines(event: Event, journey: Journey) -> list[str]:
    """Return an event of a journey as lines of text: its time, service and queue id, and what happened."""
    head, *others = describe(event, journey.message_id)
    where = f"{elapsed(event, journey):>9}  {event.service:<8} {event.queue_id:<12} "
    return [where + head, *(" " * 33 + text for text in others)]


def elapsed(event: Event, journey: Journey) -> str:
    """Return how long after its submission a mail had an event; "" where a time is not known."""
    milliseconds = journey.since(event.at)
    return "" if milliseconds is None else f"+{spoken(milliseconds / 1000)}"


def _socket(peer: str) -> str:
    """Return what a relay is whose name is this machine's own and whose address is a path (lmtp(8))."""
    return " (a Unix socket of this machine, to the mail store)" if "[/" in peer else ""


def is_relay_user(name: str) -> bool:
    """Whether a user name is one that mailstack made up for the sender of a lab."""
    return bool(re.fullmatch(r"relay-[0-9a-f]{8}", name))


def _explained(user: str) -> str:
    return " (the sender's relay user)" if is_relay_user(user) else ""
