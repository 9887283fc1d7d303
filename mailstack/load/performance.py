"""A load from start to end: temporary accounts, the mails, their account, and the removal of both."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from mailstack.actions import queues, tracing
from mailstack.actions.accounts import Accounts
from mailstack.errors import HostError, Interrupted
from mailstack.lab.running import RunningLab
from mailstack.load.arrivals import Arrivals, count_copies
from mailstack.load.ledger import Observations, Outcome, settle
from mailstack.load.plan import Mails, Plan
from mailstack.load.sending import LIMITS, Sending, too_many_connections
from mailstack.model import UNLIMITED, Deadline
from mailstack.protocol.smtp import ANSWER_SECONDS
from mailstack.roles import Role
from mailstack.secret import Secret

# The interval of the live line, in seconds.
TICK_SECONDS = 0.25
# The queue is inspected after so many seconds without an arrival: a mail that has left it cannot arrive any more.
QUIET_SECONDS = 1.0
# The time limit for the last lines of Dovecot's log, in seconds: they were written before its mailboxes were read.
LOG_SECONDS = 5.0
# The time limit for mails in transmission when the load is interrupted, in seconds.
INTERRUPTED_SECONDS = 3.0
# The number of lost mails to trace.
MAX_TRACED = 3


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The progress of a load."""

    seconds: float
    sent: int
    delivered: int
    sent_per_second: float  # since the previous report
    delivered_per_second: float


OnProgress = Callable[[LoadProgress], None]


def perform(
    lab: RunningLab,
    plan: Plan,
    progress: Callable[[str], None] = lambda text: None,
    on_progress: OnProgress = lambda now: None,
) -> Outcome:
    """Perform a load, and account for it. Ctrl-C ends it early: the outcome covers the mails sent until then.

    Raises CheckFailed when no connection could be made, HostError when the lab's servers do not run, InputError.
    """
    # Before any change: this also imports the modules that the removal needs.
    for role in (Role.SUBMISSION, Role.STORE):
        lab.one(role)
    if plan.connections > min(LIMITS.values()):
        _require_connections(lab, plan.connections)
    run, trouble = secrets.token_hex(4), list[str]()
    with _temporary_accounts(lab, plan, run, trouble, progress) as users:
        found = _perform_with(lab, plan, run, users, progress, on_progress)
    return dataclasses.replace(found, trouble=(*found.trouble, *trouble))


def _require_connections(lab: RunningLab, requested: int) -> None:
    """Raise InputError if Postfix takes fewer connections: it lets further ones wait until others have timed out."""
    output = lab.engine.execute(lab.one(Role.SUBMISSION).container, ["postconf", *LIMITS]).stdout
    found = [(int(value), line) for line in output.splitlines() if (value := line.rpartition(" ")[2]).isdecimal()]
    least, setting = min(((value, line) for value, line in found if value), default=(requested, ""))  # 0: no limit
    if requested > least:
        raise too_many_connections(requested, least, setting)


def _perform_with(
    lab: RunningLab,
    plan: Plan,
    run: str,
    users: Mapping[str, Secret],
    progress: Callable[[str], None],
    on_progress: OnProgress,
) -> Outcome:
    sending = Sending(lab, plan, Mails(run, list(users), plan.size), users)
    with closing(Arrivals(lab.engine, lab.one(Role.STORE).container, time.time())) as arrivals:
        report = _ProgressReporter(sending, arrivals, on_progress)
        finished = _send(sending, report, progress) and _settle(lab, sending, arrivals, users, report, plan.patience)
        ended = time.time()
        progress("counting the mails in the mailboxes")
        try:
            observed, trouble = _observe(lab, sending, arrivals, users)
        except Interrupted:  # raised only once: the mails sent so far are counted
            finished = False
            observed, trouble = _observe(lab, sending, arrivals, users)
    trouble += [f"{count} connections could not be made: {reason}" for reason, count in sending.failures.items()]
    found = settle(
        lab.name,
        plan,
        sending.answered,
        observed,
        connected=sending.connected,
        ended=ended,
        processor_seconds=sending.processor_seconds,
        interrupted=not finished,
        trouble=trouble,
    )
    return dataclasses.replace(found, journeys=_journeys(lab, found.lost[:MAX_TRACED]))


def _send(sending: Sending, report: _ProgressReporter, progress: Callable[[str], None]) -> bool:
    """Send all that is planned; False when that was interrupted."""
    try:
        progress("opening the connections")
        sending.connect()
        sending.start()
        while not sending.wait(TICK_SECONDS):
            report()
    except Interrupted:
        sending.stop(INTERRUPTED_SECONDS)
        return False
    except BaseException:
        sending.stop(INTERRUPTED_SECONDS)
        raise
    sending.stop(ANSWER_SECONDS)
    return True


def _settle(
    lab: RunningLab,
    sending: Sending,
    arrivals: Arrivals,
    users: Mapping[str, Secret],
    report: _ProgressReporter,
    patience: float,
) -> bool:
    """Wait, `patience` seconds at most, until no mail is on its way; False when interrupted."""
    deadline = Deadline.after(patience)
    accepted = [each.message_id for each in sending.answered if each.accepted]
    arrived, quiet = len(arrivals.saved), Deadline.after(QUIET_SECONDS)
    try:
        while not deadline.passed():
            complete = arrivals.wait_for(accepted, Deadline.after(min(TICK_SECONDS, deadline.remaining())))
            report()
            if len(arrivals.saved) > arrived:
                arrived, quiet = len(arrivals.saved), Deadline.after(QUIET_SECONDS)
            # If Postfix did not get the reply, a saved mail may still be in the queue, and be delivered again.
            if complete or quiet.passed():
                quiet = Deadline.after(min(QUIET_SECONDS, deadline.remaining()))
                if _wait_until_dequeued(lab, users, quiet):
                    break
    except Interrupted:
        return False
    return True


def _wait_until_dequeued(lab: RunningLab, addresses: Collection[str], deadline: Deadline) -> bool:
    """Wait until no mail is queued for these addresses; False when the deadline passes first."""
    condition = dataclasses.replace(queues.CONDITIONS["empty"], met=lambda found: not _involving(found, addresses))
    try:
        return queues.wait(lab.engine, _submission(lab), condition, deadline)[0]
    except HostError:  # Postfix is not running; it may run again later
        time.sleep(deadline.remaining())
        return False


def _observe(
    lab: RunningLab, sending: Sending, arrivals: Arrivals, users: Mapping[str, Secret]
) -> tuple[Observations, list[str]]:
    """Observe the mails, first in the queue, then in the mailboxes; return also what could not be read."""
    waiting, queue_errors = _waiting(lab, users)
    copies, mailbox_errors = count_copies(lab, users)
    delivered = {each for box in copies.values() for each in box}
    arrivals.wait_for(
        (each.message_id for each in sending.answered if each.message_id in delivered), Deadline.after(LOG_SECONDS)
    )
    return Observations(dict(arrivals.saved), copies, waiting), [*queue_errors, *mailbox_errors]


class _ProgressReporter:
    """Reports the progress of a load each time it is called."""

    def __init__(self, sending: Sending, arrivals: Arrivals, on_progress: OnProgress) -> None:
        self._sending, self._arrivals, self._on_progress = sending, arrivals, on_progress
        self._started = self._last = time.monotonic()
        self._sent = self._delivered = 0

    def __call__(self) -> None:
        now, sent, delivered = time.monotonic(), self._sending.sent, len(self._arrivals.saved)
        passed = max(now - self._last, 0.001)
        rates = (sent - self._sent) / passed, (delivered - self._delivered) / passed
        self._on_progress(LoadProgress(now - self._started, sent, delivered, *rates))
        self._last, self._sent, self._delivered = now, sent, delivered


@contextmanager
def _temporary_accounts(
    lab: RunningLab, plan: Plan, run: str, trouble: list[str], progress: Callable[[str], None]
) -> Iterator[dict[str, Secret]]:
    """Add accounts for as long as `with` lasts; errors of their removal are appended to `trouble`."""
    addresses = [f"load-{run}-{number}@{lab.definition().domains[0].name}" for number in range(plan.mailboxes)]

    def remove() -> None:
        progress(f"removing {plan.mailboxes} mailboxes")
        try:
            left = _queued(lab, addresses)
            queues.act(lab.engine, _submission(lab), queues.ACTIONS["delete"], left)
        except HostError as error:
            trouble.append(f"mails left in the queue could not be removed: {error.whole()}")
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
        except Interrupted:  # raised only once; the accounts are removed all the same
            remove()
            raise


def _submission(lab: RunningLab) -> dict[str, str]:
    service = lab.one(Role.SUBMISSION)
    return {service.name: service.container}


def _queued(lab: RunningLab, addresses: Collection[str]) -> list[queues.Entry]:
    """Return the mails for these addresses in the provider's queue."""
    return _involving(queues.of(lab.engine, _submission(lab)), addresses)


def _involving(entries: Sequence[queues.Entry], addresses: Collection[str]) -> list[queues.Entry]:
    """Return the entries that are from or to one of these addresses."""
    own = set(addresses)
    return [entry for entry in entries if entry.sender in own or any(each.address in own for each in entry.recipients)]


def _waiting(lab: RunningLab, addresses: Collection[str]) -> tuple[dict[tuple[str, str], str] | None, list[str]]:
    """Return (queue id, recipient) → reason, or None and why the queue cannot be read."""
    try:
        entries = _queued(lab, addresses)
    except HostError as error:
        return None, [f"the queue could not be read: {error.whole()}"]
    return {(entry.queue_id, each.address): each.reason for entry in entries for each in entry.recipients}, []


def _journeys(lab: RunningLab, message_ids: Sequence[str]) -> dict[str, str]:
    """Return the sentence of each mail's trace, by Message-ID."""
    found = {}
    if message_ids:
        with tracing.lab_lines(lab) as read:
            for each in message_ids:
                journeys = tracing.traced(read, each, ()).journeys
                found[each] = journeys[-1].sentence() if journeys else "not found in the logs"
    return found
