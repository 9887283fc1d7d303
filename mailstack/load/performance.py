"""A load from beginning to end: accounts of its own, the mails, the account of them, and nothing left behind."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from mailstack import queues, tracing
from mailstack.accounts import Accounts
from mailstack.errors import HostError, Interrupted
from mailstack.load.arrivals import Arrivals, in_mailboxes
from mailstack.load.ledger import Outcome, Seen, settle
from mailstack.load.plan import Mails, Plan
from mailstack.load.sending import LIMITS, Sending, too_many
from mailstack.mail import ANSWER_SECONDS
from mailstack.model import UNLIMITED, Deadline
from mailstack.roles import Role
from mailstack.running import RunningLab
from mailstack.secret import Secret

# How often the live line is made anew.
TICK_SECONDS = 0.25
# Where nothing has arrived for so long, the queue is looked into: what has left it comes no more.
QUIET_SECONDS = 1.0
# How long the last lines of Dovecot's log may take: it wrote them before its mailboxes were read.
LOG_SECONDS = 5.0
# How long mails that were begun are waited for when somebody wants it to end.
HASTE_SECONDS = 3.0
# Lost mails whose journey is looked up.
TRACED = 3


@dataclass(frozen=True, slots=True)
class Now:
    """How far it is."""

    seconds: float
    sent: int
    delivered: int
    sent_per_second: float  # since the last time
    delivered_per_second: float


Live = Callable[[Now], None]


def perform(
    lab: RunningLab,
    plan: Plan,
    progress: Callable[[str], None] = lambda text: None,
    live: Live = lambda now: None,
) -> Outcome:
    """Do it, and count. Ctrl-C ends the sending and the waiting: then the outcome is that of what was sent until then.

    Raises CheckFailed when no connection could be made, HostError when the lab's servers do not run, InputError.
    """
    # Both are asked for before anything is made: what they take to be looked up is then at hand for the tidying up.
    for role in (Role.SUBMISSION, Role.STORE):
        lab.one(role)
    if plan.connections > min(LIMITS.values()):
        _need_connections(lab, plan.connections)
    run, trouble = secrets.token_hex(4), list[str]()
    with _own_accounts(lab, plan, run, trouble, progress) as users:
        found = _performed(lab, plan, run, users, progress, live)
    return dataclasses.replace(found, trouble=(*found.trouble, *trouble))


def _need_connections(lab: RunningLab, wanted: int) -> None:
    """Raise InputError when Postfix takes fewer connections: it lets those beyond wait until others have timed out."""
    said = lab.engine.execute(lab.one(Role.SUBMISSION).container, ["postconf", *LIMITS]).stdout
    found = [(int(value), line) for line in said.splitlines() if (value := line.rpartition(" ")[2]).isdecimal()]
    least, setting = min(((value, line) for value, line in found if value), default=(wanted, ""))  # 0: without limit
    if wanted > least:
        raise too_many(wanted, least, setting)


def _performed(
    lab: RunningLab,
    plan: Plan,
    run: str,
    users: Mapping[str, Secret],
    progress: Callable[[str], None],
    live: Live,
) -> Outcome:
    sending = Sending(lab, plan, Mails(run, list(users), plan.size), users)
    with closing(Arrivals(lab.engine, lab.one(Role.STORE).container, time.time())) as arrivals:
        watch = _Watch(sending, arrivals, live)
        finished = _send(sending, watch, progress) and _settle(lab, sending, arrivals, users, watch, plan.patience)
        ended = time.time()
        progress("counting what is in the mailboxes")
        try:
            seen, trouble = _look(lab, sending, arrivals, users)
        except Interrupted:  # which comes once: what was sent is counted all the same
            finished = False
            seen, trouble = _look(lab, sending, arrivals, users)
    trouble += [f"{count} connections could not be made: {why}" for why, count in sending.failures.items()]
    found = settle(
        lab.name,
        plan,
        sending.posted,
        seen,
        connected=sending.connected,
        ended=ended,
        processor_seconds=sending.processor_seconds,
        interrupted=not finished,
        trouble=trouble,
    )
    return dataclasses.replace(found, journeys=_journeys(lab, found.lost[:TRACED]))


def _send(sending: Sending, watch: _Watch, progress: Callable[[str], None]) -> bool:
    """Send all that is planned; False when that was interrupted."""
    try:
        progress("making the connections")
        sending.connect()
        sending.start()
        while not sending.wait(TICK_SECONDS):
            watch()
    except Interrupted:
        sending.stop(HASTE_SECONDS)
        return False
    except BaseException:
        sending.stop(HASTE_SECONDS)
        raise
    sending.stop(ANSWER_SECONDS)
    return True


def _settle(
    lab: RunningLab, sending: Sending, arrivals: Arrivals, users: Mapping[str, Secret], watch: _Watch, patience: float
) -> bool:
    """Wait until every mail is in its mailbox, or has left the queue, or for so long; False when interrupted."""
    deadline = Deadline.after(patience)
    accepted = [each.message_id for each in sending.posted if each.accepted]
    arrived, quiet = len(arrivals.saved), Deadline.after(QUIET_SECONDS)
    try:
        while not deadline.passed():
            complete = arrivals.wait_for(accepted, Deadline.after(min(TICK_SECONDS, deadline.remaining())))
            watch()
            if len(arrivals.saved) > arrived:
                arrived, quiet = len(arrivals.saved), Deadline.after(QUIET_SECONDS)
            # Also one that was saved may be there still, and come a second time: Postfix was not told of it.
            if complete or quiet.passed():
                quiet = Deadline.after(min(QUIET_SECONDS, deadline.remaining()))
                if _emptied(lab, users, quiet):
                    break
    except Interrupted:
        return False
    return True


def _emptied(lab: RunningLab, addresses: Collection[str], deadline: Deadline) -> bool:
    """Whether nothing waits for these addresses any more, before the deadline."""
    tells = queues.CONDITIONS["empty"].tells
    condition = queues.Condition(lambda found: not _of(found, addresses), tells)
    try:
        return queues.wait(lab.engine, _submission(lab), condition, deadline)[0]
    except HostError:  # Postfix does not run; it may do so again
        time.sleep(deadline.remaining())
        return False


def _look(lab: RunningLab, sending: Sending, arrivals: Arrivals, users: Mapping[str, Secret]) -> tuple[Seen, list[str]]:
    """Where the mails are: first the queue is looked into, then the mailboxes; and what could not be looked into."""
    waiting, untold = _waiting(lab, users)
    copies, unread = in_mailboxes(lab, users)
    there = {each for box in copies.values() for each in box}
    arrivals.wait_for(
        (each.message_id for each in sending.posted if each.message_id in there), Deadline.after(LOG_SECONDS)
    )
    return Seen(dict(arrivals.saved), copies, waiting), [*untold, *unread]


class _Watch:
    """Tells how far it is, each time that it is called."""

    def __init__(self, sending: Sending, arrivals: Arrivals, live: Live) -> None:
        self._sending, self._arrivals, self._live = sending, arrivals, live
        self._begun = self._last = time.monotonic()
        self._sent = self._delivered = 0

    def __call__(self) -> None:
        now, sent, delivered = time.monotonic(), self._sending.sent, len(self._arrivals.saved)
        passed = max(now - self._last, 0.001)
        rates = (sent - self._sent) / passed, (delivered - self._delivered) / passed
        self._live(Now(now - self._begun, sent, delivered, *rates))
        self._last, self._sent, self._delivered = now, sent, delivered


@contextmanager
def _own_accounts(
    lab: RunningLab, plan: Plan, run: str, trouble: list[str], progress: Callable[[str], None]
) -> Iterator[dict[str, Secret]]:
    """Accounts that are there as long as `with` lasts; what of them could not be removed is told as `trouble`."""
    addresses = [f"load-{run}-{number}@{lab.definition.domains[0].name}" for number in range(plan.mailboxes)]

    def remove() -> None:
        progress(f"removing {plan.mailboxes} mailboxes")
        try:
            left = _queued(lab, addresses)
            queues.act(lab.engine, _submission(lab), queues.ACTIONS["delete"], left)
        except HostError as error:
            trouble.append(f"what is left in the queue could not be removed: {error.whole()}")
        try:
            with Accounts(lab) as accounts:
                accounts.remove_several(addresses)
        except HostError as error:
            trouble.append(f"not all of the load's mailboxes could be removed: {error.whole()}")

    try:
        progress(f"adding {plan.mailboxes} mailboxes")
        with Accounts(lab, progress) as accounts:
            users = accounts.add_several(addresses, quota=UNLIMITED)
        yield users
    finally:
        try:
            remove()
        except Interrupted:  # which comes once, and is no reason to leave them there
            remove()
            raise


def _submission(lab: RunningLab) -> dict[str, str]:
    service = lab.one(Role.SUBMISSION)
    return {service.name: service.container}


def _queued(lab: RunningLab, addresses: Collection[str]) -> list[queues.Entry]:
    """What waits for these addresses in the provider's queue."""
    return _of(queues.of(lab.engine, _submission(lab)), addresses)


def _of(entries: Sequence[queues.Entry], addresses: Collection[str]) -> list[queues.Entry]:
    """Those that are from or to one of these addresses."""
    own = set(addresses)
    return [entry for entry in entries if entry.sender in own or any(each.address in own for each in entry.recipients)]


def _waiting(lab: RunningLab, addresses: Collection[str]) -> tuple[dict[tuple[str, str], str] | None, list[str]]:
    """(queue id, recipient) → reason; None where the queue cannot be looked into now, and why not."""
    try:
        entries = _queued(lab, addresses)
    except HostError as error:
        return None, [f"the queue could not be looked into: {error.whole()}"]
    return {(entry.queue_id, each.address): each.reason for entry in entries for each in entry.recipients}, []


def _journeys(lab: RunningLab, message_ids: Sequence[str]) -> dict[str, str]:
    """What the logs say of mails: the trace's verdict."""
    found = {}
    if message_ids:
        with tracing.lab_lines(lab) as read:
            for each in message_ids:
                journeys = tracing.traced(read, each, ()).journeys
                found[each] = journeys[-1].sentence() if journeys else "the logs know nothing of it"
    return found
