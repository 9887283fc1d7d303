"""What stands in the queues of a lab's MTAs, and what can be done about it: postqueue(1), postsuper(1)."""

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

# In the order of a mail's way: looked at in it, a mail that moves on meanwhile is not overlooked.
_WAY = (Role.SENDER, Role.MTA, Role.SUBMISSION)

# Twice: showq(8) looks into one queue after the other, and misses a mail that moves back to one it has seen.
# qmgr(8): a deferred mail's file has the time of its next try as its time of change.
LIST = (
    "postqueue -j && postqueue -j"
    " && find /var/spool/postfix/deferred -ignore_readdir_race -type f -printf '%f %T@\\n' && echo end"
)
# A busy engine cuts a listing off once in many hundreds: then it is asked for again.
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recipient who has not got the mail yet, and why not; `reason` is "" where it has not been tried."""

    address: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A mail in a queue."""

    service: str
    name: str  # of the queue: maildrop, incoming, active, deferred or hold
    queue_id: str
    arrived: float  # seconds of the epoch, whole ones
    size: int  # bytes
    sender: str  # "" is the sender of bounces
    recipients: tuple[Waiting, ...]
    next_try: float | None = None  # seconds of the epoch; None where it is not deferred

    @property
    def deferred(self) -> bool:
        """Whether it was tried, and is to be tried again; qmgr(8) moves its file only after that is logged."""
        return self.name == "deferred" or (self.name == "active" and any(each.reason for each in self.recipients))

    def json(self, now: float) -> Json:
        """The entry as it stands in every document; `now` is in seconds of the epoch."""
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
    """Entries from the lines of `postqueue -j`, and `QUEUE-ID SECONDS` for each next try; the oldest first.

    Of a mail that is listed twice, the last line counts.
    """
    lines = [line for line in listing.splitlines() if line.strip()]
    tries = dict(line.split(" ", 1) for line in lines if not line.startswith("{"))
    found = [_entry(service, json.loads(line), tries) for line in lines if line.startswith("{")]
    return sorted({entry.queue_id: entry for entry in found}.values(), key=lambda entry: entry.arrived)


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
    """What stands in the queues of a service's container. Raises CommandFailed, EngineError."""
    reason = ""
    for _ in range(_LOOKS):
        result = engine.execute(container, ["sh", "-c", LIST])
        listing, end, _ = result.stdout.rpartition("end\n")
        if result.code == 0 and end:
            return parsed(service, listing)
        if reason := result.stderr.strip():
            break
    raise CommandFailed(f"the queue of {service} cannot be listed: {reason or 'it was cut off'}")


def services(lab: Lab) -> list[str]:
    """The services of a definition that have a queue, in the order of a mail's way."""
    found = sorted((each for each in lab.services if each.role in _WAY), key=lambda each: _WAY.index(each.role))
    return [service.name for service in found]


def containers(lab: RunningLab, service: str | None = None) -> dict[str, str]:
    """The containers that have a queue, in the order of a mail's way: `service`'s, or of those that run.

    Raises HostError when it, or all of them, do not run.
    """
    wanted = [service] if service else services(lab.defined)
    running = {state.name: state.container for state in lab.by_role(Role.MTA) if state.state == "running"}
    found = {name: running[name] for name in wanted if name in running}
    return found or {name: lab.service(name).container for name in wanted[:1]}


def of(engine: Engine, where: Mapping[str, str]) -> list[Entry]:
    """What stands in the queues of several containers (service → id)."""
    return looked(lambda service: entries(engine, where[service], service), list(where))


def looked(look: Callable[[str], list[Entry]], names: Sequence[str]) -> list[Entry]:
    """What a look into the queue of each service finds.

    Of an overlay's MTA nothing says where on the way it is: where there is one, the others are looked at once more.
    """
    again = reversed(names[:-1]) if len(names) > 2 else ()
    found = [entry for name in (*names, *again) for entry in look(name)]
    return list({(entry.service, entry.queue_id): entry for entry in found}.values())


# ── what can be done about it ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Action:
    """What postsuper(1) does to a mail: its option, what it says of each that it did it to, and which need it."""

    option: str
    done: str
    needs: Callable[[Entry], bool]


ACTIONS = {
    # A mail in maildrop is not Postfix's yet, and cannot be held.
    "hold": Action("-h", "placed on hold", lambda entry: entry.name not in ("hold", "maildrop")),
    "release": Action("-H", "released from hold", lambda entry: entry.name == "hold"),
    "delete": Action("-d", "removed", lambda entry: True),
}


def chosen(found: Sequence[Entry], ids: Iterable[str], listing: str = "") -> list[Entry]:
    """The entries of queues with these ids; `listing` is the command line that lists all entries.

    Raises InputError for an id that is not there, or there twice.
    """
    wanted = []
    for queue_id in dict.fromkeys(ids):
        same = [entry for entry in found if entry.queue_id == queue_id]
        if not same:
            raise InputError(f"no mail in the queue has the id {queue_id!r}", remedy=_there_are(found, listing))
        if len(same) > 1:
            names = " and ".join(sorted(entry.service for entry in same))
            raise InputError(f"{names} have a mail {queue_id} each", remedy="name the service, too")
        wanted += same
    return wanted


def _there_are(found: Sequence[Entry], listing: str) -> str:
    if not found:
        return "the queue is empty"
    shown = [f"{entry.queue_id} ({entry.service})" for entry in found[:20]]
    more = [f"and {len(found) - 20} more: `{listing}`"] if len(found) > 20 else []
    return "there are: " + ", ".join(shown + more)


def act(engine: Engine, where: Mapping[str, str], action: Action, wanted: Sequence[Entry]) -> list[Entry]:
    """Hold, release or delete these mails, and give those that it was done to: the others have moved on meanwhile."""
    done = []
    for service, container in where.items():
        asked = [entry for entry in wanted if entry.service == service]
        if not asked:
            continue
        ids = "".join(f"{entry.queue_id}\n" for entry in asked)
        result = engine.execute(container, ["postsuper", action.option, "-"], input=ids.encode())
        if result.code != 0:
            raise CommandFailed(f"postsuper {action.option} in {service}: {result.stderr.strip()}")
        said = set(re.findall(rf"^postsuper: (\w+): {action.done}$", result.stderr, re.MULTILINE))
        done += [entry for entry in asked if entry.queue_id in said]
    return done


def flush(engine: Engine, where: Mapping[str, str], wanted: Sequence[Entry] | None = None) -> None:
    """Ask for a try, now, of all deferred mails or of these alone. Whether it succeeds, the log tells."""
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
    """What a queue may be waited for to be, and the lines of its log after which it may be so."""

    met: Callable[[Sequence[Entry]], bool]
    tells: re.Pattern[str]


CONDITIONS = {
    "empty": Condition(lambda found: not found, re.compile(r"\]: (?P<id>\w+): (removed|requeued)$")),
    # bounce(8) has the reason before the delivery agent logs it: defer_append() in Postfix's sources.
    "deferred": Condition(
        lambda found: any(entry.deferred for entry in found), re.compile(r" status=deferred |eleased from hold")
    ),
    # A mail that an access table or a milter has put on hold is there when its client has been answered.
    "held": Condition(
        lambda found: any(entry.name == "hold" for entry in found),
        re.compile(r"laced on hold|: hold: |: disconnect from "),
    ),
}


def wait(
    engine: Engine, where: Mapping[str, str], condition: Condition, deadline: Deadline
) -> tuple[bool, list[Entry]]:
    """Wait until `condition` is met: whether it was before the deadline, and what stood in the queues then.

    The servers' logs tell when to look. Raises what `entries` does: EngineError when a container has stopped.
    """
    with contextlib.closing(engine.follow(where, since=time.time(), deadline=deadline)) as lines:
        found = of(engine, where)
        standing = _standing(found)
        while not condition.met(found):
            heard = next(lines, None)
            if heard is None or tells(condition, heard, standing):
                found = of(engine, where)
                standing = _standing(found)
            if heard is None:
                return condition.met(found), found
        return True, found


def _standing(found: Iterable[Entry]) -> set[tuple[str, str]]:
    # What is in maildrop gets another id when it is taken from there.
    return {(entry.service, entry.queue_id) for entry in found if entry.name != "maildrop"}


def tells(condition: Condition, heard: tuple[str, str], standing: set[tuple[str, str]]) -> bool:
    """Whether a line (service, text) says that it is time to look again.

    Of mails that leave, the last does: each is taken out of `standing`, so that many of them do not cost a look each.
    """
    found = condition.tells.search(heard[1])
    if found is None:
        return False
    if "id" in found.groupdict():
        standing.discard((heard[0], found["id"]))
        return not standing
    return True
