"""The queues of a lab's MTAs: list, hold, release, delete, flush, wait (postqueue(1), postsuper(1))."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mailstack.engine.engine import Engine
from mailstack.errors import CommandFailed, InputError
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline, Json, Lab
from mailstack.roles import Role

# In the direction of mail flow: a mail that moves on during the inspection is not missed.
_MAIL_FLOW = (Role.SENDER, Role.MTA, Role.SUBMISSION)

# Twice: showq(8) reads one queue after the other, and misses a mail that moves back to a queue it has read. qmgr(8)
# sets the modification time of a deferred mail's file to the time of its next delivery attempt.
LIST = (
    "postqueue -j && postqueue -j"
    " && find /var/spool/postfix/deferred -ignore_readdir_race -type f -printf '%f %T@\\n' && echo end"
)
# A busy engine truncates one listing in many hundreds; then it is requested again.
_LIST_TRIES = 3


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recipient who does not have the mail yet. `reason` is "" before the first delivery attempt."""

    address: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A mail in a queue."""

    service: str
    name: str  # queue: maildrop, incoming, active, deferred or hold
    queue_id: str
    arrived: float  # seconds of the epoch, without fractions
    size: int  # bytes
    sender: str  # envelope sender; "" for bounces
    recipients: tuple[Waiting, ...]
    next_try: float | None = None  # seconds of the epoch; None if the mail is not deferred

    @property
    def deferred(self) -> bool:
        """Whether a delivery attempt failed and another follows. qmgr(8) moves the file only after that is logged."""
        return self.name == "deferred" or (self.name == "active" and any(each.reason for each in self.recipients))

    def json(self, now: float) -> Json:
        """Return the entry as in every document; `now` is in seconds of the epoch."""
        return {
            "service": self.service,
            "queue": self.name,
            "queue_id": self.queue_id,
            "arrived": _iso(self.arrived),
            "age_seconds": round(max(0.0, now - self.arrived), 1),
            "bytes": self.size,
            "from": self.sender,
            "recipients": [{"address": each.address, "reason": each.reason} for each in self.recipients],
            "next_try": None if self.next_try is None else _iso(self.next_try),
            "next_try_seconds": None if self.next_try is None else round(max(0.0, self.next_try - now), 1),
        }


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


def parsed(service: str, listing: str) -> list[Entry]:
    """Return the entries in lines of `postqueue -j`, with `QUEUE-ID SECONDS` for each next try; the oldest first.

    If a mail is listed twice, its last line counts.
    """
    lines = [line for line in listing.splitlines() if line.strip()]
    tries = dict(line.split(" ", 1) for line in lines if not line.startswith("{"))
    listed = [_entry(service, json.loads(line), tries) for line in lines if line.startswith("{")]
    return sorted({entry.queue_id: entry for entry in listed}.values(), key=lambda entry: entry.arrived)


def _entry(service: str, mail: Json, tries: Mapping[str, str]) -> Entry:
    deferred = mail["queue_name"] == "deferred" and mail["queue_id"] in tries
    return Entry(
        service=service,
        name=mail["queue_name"],
        queue_id=mail["queue_id"],
        arrived=float(mail["arrival_time"]),
        size=mail["message_size"],
        sender=mail["sender"],
        recipients=tuple(Waiting(each["address"], each.get("delay_reason", "")) for each in mail["recipients"]),
        next_try=float(tries[mail["queue_id"]]) if deferred else None,
    )


def entries(engine: Engine, container: str, service: str) -> list[Entry]:
    """Return the entries in the queues of a service's container. Raises CommandFailed, EngineError."""
    reason = ""
    for _ in range(_LIST_TRIES):
        result = engine.execute(container, ["sh", "-c", LIST])
        listing, end, _ = result.stdout.rpartition("end\n")
        if result.code == 0 and end:
            return parsed(service, listing)
        if reason := result.stderr.strip():
            break
    raise CommandFailed(f"the queue of {service} cannot be listed: {reason or 'it was cut off'}")


def services(lab: Lab) -> list[str]:
    """Return the services of a definition that have a queue, in the direction of mail flow."""
    listed = sorted(
        (each for each in lab.services if each.role in _MAIL_FLOW), key=lambda each: _MAIL_FLOW.index(each.role)
    )
    return [service.name for service in listed]


def containers(lab: RunningLab, service: str | None = None) -> dict[str, str]:
    """Return the containers that have a queue, in the direction of mail flow: `service`'s, or all that run.

    Raises HostError if it, or every one of them, does not run.
    """
    wanted = [service] if service else services(lab.defined)
    running = {state.name: state.container for state in lab.by_role(Role.MTA) if state.state == "running"}
    matching = {name: running[name] for name in wanted if name in running}
    return matching or {name: lab.service(name).container for name in wanted[:1]}


def of(engine: Engine, where: Mapping[str, str]) -> list[Entry]:
    """Return the entries in the queues of several containers (service → id)."""
    return inspect_all(lambda service: entries(engine, where[service], service), list(where))


def inspect_all(inspect: Callable[[str], list[Entry]], names: Sequence[str]) -> list[Entry]:
    """Return the entries that `look` finds for each service.

    The position of an overlay's MTA in the mail flow is unknown. With one, the other services are inspected twice.
    """
    again = reversed(names[:-1]) if len(names) > 2 else ()
    listed = [entry for name in (*names, *again) for entry in inspect(name)]
    return list({(entry.service, entry.queue_id): entry for entry in listed}.values())


# ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Action:
    """An action of postsuper(1): its option, its message for each mail done, and which mails need it."""

    option: str
    done: str
    needs: Callable[[Entry], bool]


ACTIONS = {
    # Postfix cannot hold a mail in maildrop: it has not picked it up yet.
    "hold": Action("-h", "placed on hold", lambda entry: entry.name not in ("hold", "maildrop")),
    "release": Action("-H", "released from hold", lambda entry: entry.name == "hold"),
    "delete": Action("-d", "removed", lambda entry: True),
}


def chosen(found: Sequence[Entry], ids: Iterable[str], listing: str = "") -> list[Entry]:
    """Return the queue entries with these ids; `listing` is the command line that lists all entries.

    Raises InputError for an id that does not exist, or exists in two services.
    """
    selected = []
    for queue_id in dict.fromkeys(ids):
        same = [entry for entry in found if entry.queue_id == queue_id]
        if not same:
            raise InputError(f"no mail in the queue has the id {queue_id!r}", remedy=_known_ids(found, listing))
        if len(same) > 1:
            names = " and ".join(sorted(entry.service for entry in same))
            raise InputError(f"{names} have a mail {queue_id} each", remedy="give the service as well")
        selected += same
    return selected


def _known_ids(found: Sequence[Entry], listing: str) -> str:
    if not found:
        return "the queue is empty"
    shown = [f"{entry.queue_id} ({entry.service})" for entry in found[:20]]
    more = [f"and {len(found) - 20} more: `{listing}`"] if len(found) > 20 else []
    return "queue ids: " + ", ".join(shown + more)


def act(engine: Engine, where: Mapping[str, str], action: Action, wanted: Sequence[Entry]) -> list[Entry]:
    """Hold, release or delete these mails, and return those that postsuper(1) changed: others have moved on."""
    done = []
    for service, container in where.items():
        requested = [entry for entry in wanted if entry.service == service]
        if not requested:
            continue
        ids = "".join(f"{entry.queue_id}\n" for entry in requested)
        result = engine.execute(container, ["postsuper", action.option, "-"], input=ids.encode())
        if result.code != 0:
            raise CommandFailed(f"postsuper {action.option} in {service}: {result.stderr.strip()}")
        changed = set(re.findall(rf"^postsuper: (\w+): {action.done}$", result.stderr, re.MULTILINE))
        done += [entry for entry in requested if entry.queue_id in changed]
    return done


def flush(engine: Engine, where: Mapping[str, str], wanted: Sequence[Entry] | None = None) -> None:
    """Request a delivery attempt now, of all deferred mails or of `wanted` alone. Its result is in the log."""
    for service, container in where.items():
        if wanted is None:
            result = engine.execute(container, ["postqueue", "-f"])
        else:
            ids = "".join(f"{entry.queue_id}\n" for entry in wanted if entry.service == service)
            result = engine.execute(container, ["xargs", "-r", "-n", "1", "postqueue", "-i"], input=ids.encode())
        if result.code != 0:
            raise CommandFailed(f"postqueue in {service}: {result.stderr.strip()}")


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Condition:
    """A state of the queues to wait for, and the log lines after which it may be reached."""

    met: Callable[[Sequence[Entry]], bool]
    log_pattern: re.Pattern[str]


CONDITIONS = {
    "empty": Condition(lambda found: not found, re.compile(r"\]: (?P<id>\w+): (removed|requeued)$")),
    # bounce(8) records the reason before the delivery agent logs it: defer_append() in Postfix's sources.
    "deferred": Condition(
        lambda found: any(entry.deferred for entry in found), re.compile(r" status=deferred |eleased from hold")
    ),
    # A mail that an access table or a milter has put on hold is in the queue once its client has the reply.
    "held": Condition(
        lambda found: any(entry.name == "hold" for entry in found),
        re.compile(r"laced on hold|: hold: |: disconnect from "),
    ),
}


def wait(
    engine: Engine, where: Mapping[str, str], condition: Condition, deadline: Deadline
) -> tuple[bool, list[Entry]]:
    """Wait until `condition` is met; return whether it was before the deadline, and the last entries seen.

    The servers' logs tell when to inspect the queues. Raises what `entries` does: EngineError if a container stopped.
    """
    with contextlib.closing(engine.follow(where, since=time.time(), deadline=deadline)) as lines:
        found = of(engine, where)
        remaining = _remaining(found)
        while not condition.met(found):
            line = next(lines, None)
            if line is None or needs_inspection(condition, line, remaining):
                found = of(engine, where)
                remaining = _remaining(found)
            if line is None:
                return condition.met(found), found
        return True, found


def _remaining(found: Iterable[Entry]) -> set[tuple[str, str]]:
    # A mail in maildrop gets another queue id when it is picked up.
    return {(entry.service, entry.queue_id) for entry in found if entry.name != "maildrop"}


def needs_inspection(condition: Condition, line: tuple[str, str], remaining: set[tuple[str, str]]) -> bool:
    """Whether a log line (service, text) makes an inspection worthwhile.

    For mails that leave the queue, only the last line does. Each mail is removed from `remaining`, so that many of them
    do not cost an inspection each.
    """
    match = condition.log_pattern.search(line[1])
    if match is None:
        return False
    if "id" in match.groupdict():
        remaining.discard((line[0], match["id"]))
        return not remaining
    return True
