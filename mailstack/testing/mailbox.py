"""A mailbox for one test, and how to wait for mail in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailstack.errors import MailstackError
from mailstack.model import Deadline
from mailstack.testing.criteria import Criteria, Predicate, Text, describe_miss
from mailstack.testing.inbox import Inbox, journey
from mailstack.testing.received import Message
from mailstack.testing.settings import Password, SmtpSettings

if TYPE_CHECKING:
    from mailstack.actions.queue_watch import QueueWatch
    from mailstack.lab.running import RunningLab

# TIMEOUT_SECONDS is the default timeout for a mail, many times what a slow machine needs. QUIET_SECONDS is how long
# `assert_no_message` watches.
TIMEOUT_SECONDS = 10.0
QUIET_SECONDS = 0.5

# Seconds between attempts to read a mailbox that cannot be opened: the first interval, and the longest.
_FIRST_PAUSE, _MAX_PAUSE = 0.005, 1.0


class MailboxUnmet(AssertionError):
    """An assertion about a mailbox failed. The plugin adds the lab's evidence to the report."""

    def __init__(self, text: str, mailbox: Mailbox) -> None:
        super().__init__(text)
        self.mailbox = mailbox


def failed_wait(error: BaseException) -> MailboxUnmet | None:
    """Return the failed wait behind an error: the error itself, or one in its chain of causes."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        if isinstance(each, MailboxUnmet):
            return each
        seen.add(id(each))
        each = each.__cause__ or each.__context__
    return None


class Mailbox:
    """An account of the lab and the mails that arrive for it. It has one IMAP connection, opened when first needed."""

    def __init__(self, lab: RunningLab, address: str, password: Password, queues: QueueWatch, patience: float) -> None:
        self.lab, self.address, self.password = lab, address, password
        self.created = time.time()
        self._queues, self._patience = queues, patience
        self._inbox = Inbox(lab, address, password)

    def __repr__(self) -> str:
        return f"<Mailbox {self.address}>"

    @property
    def smtp(self) -> SmtpSettings:
        """Return the settings with which the mailbox's user submits mail, from this address only."""
        submission = self.lab.endpoints["submission"]
        return SmtpSettings(submission.host, submission.port, self.address, self.password, self.lab.ca_file)

    def close(self) -> None:
        """Log out, if the mailbox was opened. Errors of a broken lab are ignored."""
        self._inbox.close()

    # ── looking ────────────────────────────────────────────────────────────────────────────────────────────────

    def messages(self) -> list[Message]:
        """Return the messages in the mailbox now, oldest first."""
        with self._inbox.connected() as box:
            box.client.noop()  # fetch pending updates
        return self._inbox.new()

    def seen(self) -> list[Message]:
        """Return the mails seen since the last `clear`, oldest first. Asks no server."""
        return self._inbox.seen()

    def clear(self) -> None:
        """Delete all mails in the mailbox. A mail that is still on its way arrives nevertheless."""
        # The mails are listed first, so one that arrives later stays. A mail that Postfix is about to dequeue has
        # arrived.
        self._inbox.clear(self.messages())

    # ── waiting ────────────────────────────────────────────────────────────────────────────────────────────────

    def wait_for_message(
        self,
        *,
        subject: Text | None = None,
        sender: Text | None = None,
        to: Text | None = None,
        matching: Predicate | None = None,
        after: Message | None = None,
        timeout: float | None = None,
    ) -> Message:
        """Return the oldest message that matches, as soon as it arrives; with `after`, one that arrived later than
        that.

        A string for `subject` must occur in the mail's subject, case-insensitively. `sender` and `to` (To or Cc) are
        addresses. Each of them may be a compiled pattern. `matching` is a function of the message. `timeout` is in
        seconds. Raises MailboxUnmet, an AssertionError.
        """
        __tracebackhide__ = True
        (found,) = self.wait_for_messages(
            1, subject=subject, sender=sender, to=to, matching=matching, after=after, timeout=timeout
        )
        return found

    def wait_for_messages(
        self,
        n: int,
        *,
        subject: Text | None = None,
        sender: Text | None = None,
        to: Text | None = None,
        matching: Predicate | None = None,
        after: Message | None = None,
        timeout: float | None = None,
    ) -> list[Message]:
        """Return the `n` oldest messages that match, as soon as they arrive; otherwise as `wait_for_message`."""
        __tracebackhide__ = True
        criteria = Criteria(subject, sender, to, matching)
        deadline = Deadline.after(self._patience if timeout is None else timeout)
        for fitting in self._poll(criteria, after, deadline):
            if len(fitting) >= n:
                return fitting[:n]
        last = after.uid if after else 0
        received = [message for message in self.seen() if message.uid > last]
        raise MailboxUnmet(describe_miss(criteria, n, received, self.address, deadline.seconds, after), self)

    def assert_no_message(
        self,
        *,
        within: float = QUIET_SECONDS,
        subject: Text | None = None,
        sender: Text | None = None,
        to: Text | None = None,
        matching: Predicate | None = None,
        after: Message | None = None,
    ) -> None:
        """Assert that no message matches now or within so many seconds, and that no queue then holds one for this
        mailbox.

        Raises MailboxUnmet, an AssertionError.
        """
        __tracebackhide__ = True
        criteria = Criteria(subject, sender, to, matching)
        self._expect_none(criteria, after, Deadline.after(within))
        try:
            queued = _queued_mails(self.lab, self.address, self._queues, criteria)
        except MailstackError as error:
            raise MailboxUnmet(f"the queues cannot be read: {error.whole()}", self) from None
        # A mail that had left the queues is in the mailbox. Postfix may still be about to remove it from its queue.
        self._expect_none(criteria, after, Deadline.after(0))
        arrived_ids = {queue_id for message in [*self._inbox.cleared, *self.seen()] for queue_id in message.queue_ids}
        lines = [f"  {text}" for queue_id, text in queued if queue_id not in arrived_ids]
        if lines:
            headline = f"expected no {criteria.describe()} for {self.address}, but this one is queued:"
            raise MailboxUnmet(self.lab.blotter().clean("\n".join([headline, *lines])), self)

    def _expect_none(self, criteria: Criteria, after: Message | None, deadline: Deadline) -> None:
        __tracebackhide__ = True
        for fitting in self._poll(criteria, after, deadline):
            if fitting:
                raise MailboxUnmet(
                    f"expected no {criteria.describe()} for {self.address}, but this one arrived:\n  {fitting[0]!r}",
                    self,
                )

    def _poll(self, criteria: Criteria, after: Message | None, deadline: Deadline) -> Iterator[list[Message]]:
        """Yield the matching messages at each poll. The last poll is after the deadline."""
        __tracebackhide__ = True
        seen = after.uid if after else 0
        fitting: list[Message] = []
        pause = _FIRST_PAUSE
        while True:
            passed = deadline.passed()
            try:
                new = self._inbox.new(seen)
            except MailstackError as error:
                # For example, a server that restarts. There is no event to wait for.
                if passed:
                    raise MailboxUnmet(f"the mailbox of {self.address} cannot be read: {error.whole()}", self) from None
                time.sleep(min(deadline.remaining(), pause))
                pause = min(pause * 1.5, _MAX_PAUSE)
            else:
                seen = max([seen, *(message.uid for message in new)])
                fitting += [message for message in new if criteria.fits(message)]
                yield fitting
                if passed:
                    return
                self._inbox.wait_for_change(deadline)


def _queued_mails(lab: RunningLab, address: str, queues: QueueWatch, criteria: Criteria) -> list[tuple[str, str]]:
    """Return the queued mails for a mailbox that match: the queue id, and a text with the mail, the queue and the
    reason.

    Raises MailstackError.
    """
    from mailstack.definition import destinations
    from mailstack.message import message

    found = []
    entries = queues.entries()
    definition = lab.definition() if entries else lab.defined  # the former grows with every test
    for entry in entries:
        own = [each for each in entry.recipients if address in destinations.mailboxes(definition, each.address)]
        raw = queues.mail(entry) if own else b""
        mail = Message(
            message.Message(0, raw, datetime.fromtimestamp(entry.arrived, UTC)), lambda name: journey(lab, name)
        )
        if raw and criteria.fits(mail):
            reason = next((each.reason for each in own if each.reason), "not tried yet")
            place = f"{entry.queue_id} in {entry.service}, {entry.name}"
            found.append((entry.queue_id, f"“{mail.subject}” from {mail.sender or '<>'}: {place}: {reason}"))
    return found
