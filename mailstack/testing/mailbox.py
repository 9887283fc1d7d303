"""A mailbox of a test's own, and waiting for what comes into it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailstack.errors import MailstackError
from mailstack.model import Deadline
from mailstack.testing.criteria import Criteria, Predicate, Text, missed
from mailstack.testing.inbox import Inbox, journey
from mailstack.testing.received import Message
from mailstack.testing.settings import Password, SmtpSettings

if TYPE_CHECKING:
    from mailstack.actions.queue_watch import Looks
    from mailstack.lab.running import RunningLab

# How long a mail may take, in seconds: many times what a slow machine needs; and how long “no mail” is watched.
PATIENCE = 10.0
QUIET = 0.5

# How long a mailbox that cannot be looked into is left alone at first, and at most; in seconds.
_AGAIN, _AGAIN_AT_MOST = 0.005, 1.0


class MailboxUnmet(AssertionError):
    """What a test said of a mailbox is not so; the plugin adds to the report what the lab knows about it."""

    def __init__(self, text: str, mailbox: Mailbox) -> None:
        super().__init__(text)
        self.mailbox = mailbox


class Mailbox:
    """An account of the lab, with the mails that come to it. One IMAP connection, opened when it is first looked at."""

    def __init__(self, lab: RunningLab, address: str, password: Password, queues: Looks, patience: float) -> None:
        self.lab = lab
        self.address = address
        self.password = password
        self.begun = time.time()
        self._queues, self._patience = queues, patience
        self._inbox = Inbox(lab, address, password)

    def __repr__(self) -> str:
        return f"<Mailbox {self.address}>"

    @property
    def smtp(self) -> SmtpSettings:
        """What its user submits mail with, from this address alone."""
        submission = self.lab.endpoints["submission"]
        return SmtpSettings(submission.host, submission.port, self.address, self.password, self.lab.ca_file)

    def close(self) -> None:
        """Log out, if it was looked into. Errors of a broken lab are ignored."""
        self._inbox.close()

    # ── looking ────────────────────────────────────────────────────────────────────────────────────────────────

    def messages(self) -> list[Message]:
        """What is in the mailbox now, oldest first."""
        with self._inbox.opened() as box:
            box.client.noop()  # whatever it has told before
        return self._inbox.new()

    def seen(self) -> list[Message]:
        """Every mail that was seen in it since it was last cleared, oldest first; asks no server."""
        return self._inbox.seen()

    def clear(self) -> None:
        """Take every mail that is there out of the mailbox. One that is still on its way comes all the same."""
        # Looked at first: a mail that comes only now stays; what Postfix is about to remove from its queue has come.
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
        """The oldest message that fits, as soon as it is there; `after` is for one that came later than another.

        A `subject` that is a string is contained in the mail's, in upper or lower case; `sender` and `to` (or Cc) are
        addresses; any of them may be a compiled pattern. `matching` is a function of the message. `timeout` is in
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
        """The `n` oldest messages that fit, as soon as they are there; otherwise as `wait_for_message`."""
        __tracebackhide__ = True
        criteria = Criteria(subject, sender, to, matching)
        deadline = Deadline.after(self._patience if timeout is None else timeout)
        for fitting in self._looks(criteria, after, deadline):
            if len(fitting) >= n:
                return fitting[:n]
        last = after.uid if after else 0
        came = [message for message in self.seen() if message.uid > last]
        raise MailboxUnmet(missed(criteria, n, came, self.address, deadline.seconds, after), self)

    def assert_no_message(
        self,
        *,
        within: float = QUIET,
        subject: Text | None = None,
        sender: Text | None = None,
        to: Text | None = None,
        matching: Predicate | None = None,
        after: Message | None = None,
    ) -> None:
        """That no message that fits is there, none comes in so many seconds, and none stands in a queue for it then.

        Raises MailboxUnmet, an AssertionError.
        """
        __tracebackhide__ = True
        criteria = Criteria(subject, sender, to, matching)
        self._expect_none(criteria, after, Deadline.after(within))
        try:
            standing = _queued(self.lab, self.address, self._queues, criteria)
        except MailstackError as error:
            raise MailboxUnmet(f"the queues cannot be looked into: {error.whole()}", self) from None
        # What had left the queues when they were looked at is in the mailbox; Postfix may still be about to remove it.
        self._expect_none(criteria, after, Deadline.after(0))
        here = {queue_id for message in [*self._inbox.cleared, *self.seen()] for queue_id in message.queue_ids}
        told = [f"  {text}" for queue_id, text in standing if queue_id not in here]
        if told:
            said = f"no {criteria.called()} should come to {self.address}, but this one is on its way:"
            raise MailboxUnmet(self.lab.blotter().clean("\n".join([said, *told])), self)

    def _expect_none(self, criteria: Criteria, after: Message | None, deadline: Deadline) -> None:
        __tracebackhide__ = True
        for fitting in self._looks(criteria, after, deadline):
            if fitting:
                raise MailboxUnmet(
                    f"no {criteria.called()} should come to {self.address}, but this one did:\n  {fitting[0]!r}", self
                )

    def _looks(self, criteria: Criteria, after: Message | None, deadline: Deadline) -> Iterator[list[Message]]:
        """The messages that fit, at each look; the last look is when the deadline has passed."""
        __tracebackhide__ = True
        seen = after.uid if after else 0
        fitting: list[Message] = []
        pause = _AGAIN
        while True:
            passed = deadline.passed()
            try:
                new = self._inbox.new(seen)
            except MailstackError as error:
                # A server that is started again, say: there is no event for that.
                if passed:
                    raise MailboxUnmet(
                        f"the mailbox of {self.address} cannot be looked into: {error.whole()}", self
                    ) from None
                time.sleep(min(deadline.remaining(), pause))
                pause = min(pause * 1.5, _AGAIN_AT_MOST)
            else:
                seen = max([seen, *(message.uid for message in new)])
                fitting += [message for message in new if criteria.fits(message)]
                yield fitting
                if passed:
                    return
                self._inbox.await_news(deadline)


def _queued(lab: RunningLab, address: str, queues: Looks, criteria: Criteria) -> list[tuple[str, str]]:
    """Return the mails for a mailbox that fit and stand in a queue: the queue id, and which mail, where, and why.

    Raises MailstackError.
    """
    from mailstack.actions import sending
    from mailstack.message import message

    found = []
    entries = queues.entries()
    definition = lab.definition() if entries else lab.defined  # the former grows with every test
    for entry in entries:
        mine = [each for each in entry.recipients if address in sending.mailboxes_for(definition, each.address)]
        raw = queues.mail(entry) if mine else b""
        mail = Message(
            message.Message(0, raw, datetime.fromtimestamp(entry.arrived, UTC)), lambda name: journey(lab, name)
        )
        if raw and criteria.fits(mail):
            why = next((each.reason for each in mine if each.reason), "not tried yet")
            place = f"{entry.queue_id} in {entry.service}, {entry.name}"
            found.append((entry.queue_id, f"“{mail.subject}” from {mail.sender or '<>'}: {place}: {why}"))
    return found
