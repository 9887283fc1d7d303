"""A mailbox of a test's own, and waiting for what comes into it."""

from __future__ import annotations

import re
import secrets as _random
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from mailstack.durations import spoken
from mailstack.errors import MailstackError
from mailstack.model import Deadline
from mailstack.secret import Secret
from mailstack.testing.criteria import Criteria, Predicate, Text, nearest, plain, shown
from mailstack.testing.received import Message
from mailstack.testing.settings import Password, SmtpSettings

if TYPE_CHECKING:
    from imap_tools import BaseMailBox

    from mailstack.accounts import Accounts
    from mailstack.running import RunningLab
    from mailstack.trace.journey import Journey

# How long a mail may take, in seconds: many times what a slow machine needs; and how long “no mail” is watched.
PATIENCE = 10.0
QUIET = 0.5

# How long a mailbox that cannot be looked into is left alone at first, and at most; in seconds.
_AGAIN, _AGAIN_AT_MOST = 0.005, 1.0

# How many messages a failure names.
_MOST = 10


class MailboxUnmet(AssertionError):
    """What a test said of a mailbox is not so; the plugin adds to the report what the lab knows about it."""

    def __init__(self, text: str, mailbox: Mailbox) -> None:
        super().__init__(text)
        self.mailbox = mailbox


class Mailbox:
    """An account of the lab, with the mails that come to it. One IMAP connection, opened when it is first looked at."""

    def __init__(self, lab: RunningLab, address: str, password: Password, patience: float = PATIENCE) -> None:
        self.lab = lab
        self.address = address
        self.password = password
        self.begun = time.time()
        self._patience = patience
        self._messages: dict[int, Message] = {}  # every one that was seen, by UID
        self._connection: AbstractContextManager[BaseMailBox] | None = None
        self._box: BaseMailBox | None = None

    def __repr__(self) -> str:
        return f"<Mailbox {self.address}>"

    @property
    def smtp(self) -> SmtpSettings:
        """What its user submits mail with, from this address alone."""
        submission = self.lab.endpoints["submission"]
        return SmtpSettings(submission.host, submission.port, self.address, self.password, self.lab.ca_file)

    # ── looking ────────────────────────────────────────────────────────────────────────────────────────────────

    def messages(self) -> list[Message]:
        """What is in the mailbox now, oldest first."""
        with self._opened() as box:
            box.client.noop()  # whatever it has told before
        return self._new(0)

    def seen(self) -> list[Message]:
        """Every mail that was seen in it since it was last cleared, oldest first; asks no server."""
        return [message for _, message in sorted(self._messages.items())]

    def clear(self) -> None:
        """Take every mail that is there out of the mailbox. One that is still on its way comes all the same."""
        with self._opened() as box:
            box.client.noop()
            box.delete(box.uids())
        self._messages.clear()

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
        raise MailboxUnmet(self._missed(criteria, n, after, deadline.seconds), self)

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
        """That no message that fits is there, nor comes in so many seconds. Raises MailboxUnmet, an AssertionError."""
        __tracebackhide__ = True
        criteria = Criteria(subject, sender, to, matching)
        for fitting in self._looks(criteria, after, Deadline.after(within)):
            if fitting:
                raise MailboxUnmet(
                    f"no {_called(criteria)} should come to {self.address}, but this one did:\n  {fitting[0]!r}", self
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
                new = self._new(seen)
            except MailstackError as error:
                # A server that is started again, say: there is no event for that.
                if passed:
                    raise MailboxUnmet(f"the mailbox of {self.address} cannot be looked into: {error}", self) from None
                time.sleep(min(deadline.remaining(), pause))
                pause = min(pause * 1.5, _AGAIN_AT_MOST)
            else:
                seen = max([seen, *(message.uid for message in new)])
                fitting += [message for message in new if criteria.fits(message)]
                yield fitting
                if passed:
                    return
                self._await_news(deadline)

    def _new(self, after: int) -> list[Message]:
        """The mails that have come after the one with this UID."""
        from mailstack import mailboxes, news

        with self._opened() as box:
            news.refresh(box)
            return [self._seen(mail) for mail in mailboxes.messages(box, after)]

    def _await_news(self, deadline: Deadline) -> None:
        """Until there are others, or the deadline has passed."""
        from mailstack import news

        with suppress(MailstackError), self._opened() as box:  # the next look tells what is the matter
            news.wait(box, deadline)

    def _missed(self, criteria: Criteria, n: int, after: Message | None, seconds: float) -> str:
        """What was waited for, and what came instead: the nearest first."""
        last = after.uid if after else 0
        every = [message for uid, message in sorted(self._messages.items()) if uid > last]
        fitting = [message for message in every if criteria.fits(message)]
        later = f" after {after!r}" if after else ""
        what = f"no {_called(criteria)}" if n == 1 else f"{len(fitting)} of {n} × {_called(criteria)}"
        lines = [f"{what} came to {self.address} within {spoken(seconds)}{later}"]
        lines += [f"  came: {message!r}" for message in fitting]
        missed = nearest(criteria, every)
        if not missed:
            return "\n".join([*lines, *([] if fitting else ["the mailbox is empty"])])
        lines.append(f"{len(missed)} came instead" + (", the nearest first:" if len(missed) > 1 else ":"))
        for message, judged in missed[:_MOST]:
            lines.append(f"  {message!r}")
            for each in judged:
                wanted = getattr(criteria, each.name)
                if each.met:
                    lines.append(f"      {each.name}: as wanted")
                elif each.name == "matching":
                    lines.append(f"      matching: {getattr(wanted, '__name__', repr(wanted))} says no")
                elif each.name == "subject":
                    lines.append(f"      subject: “{each.found}”, not {shown(wanted)}")
                else:
                    lines.append(f"      {each.name}: {each.found or 'nobody'}, not {plain(wanted)}")
        lines += [f"  … and {len(missed) - _MOST} more"] if len(missed) > _MOST else []
        return "\n".join(lines)

    # ── the connection ─────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Log out, where it was looked at; what a lab that is broken has to say to that is nobody's business."""
        connection, self._connection, self._box = self._connection, None, None
        if connection:
            with suppress(MailstackError):
                connection.__exit__(None, None, None)

    @contextmanager
    def _opened(self) -> Iterator[BaseMailBox]:
        """The mailbox over IMAP; a connection that is lost is made anew by the next one who looks. Raises HostError."""
        from mailstack import mail

        if self._connection is None or self._box is None:
            context = mail.kept_context(self.lab.ca_file.read_text())
            connection = mail.mailbox(self.lab.endpoints["imaps"], context, self.address, Secret(self.password))
            self._box = connection.__enter__()
            self._connection = connection
        try:
            yield self._box
        except BaseException:
            broken, self._connection, self._box = self._connection, None, None
            if broken:
                broken.__exit__(*sys.exc_info())
            raise

    def _seen(self, mail: object) -> Message:
        from mailstack.message import Message as Mail

        assert isinstance(mail, Mail)
        return self._messages.setdefault(mail.uid, Message(mail, self._journey))

    def _journey(self, name: str) -> Journey:
        __tracebackhide__ = True
        return journey(self.lab, name)


class MailboxFactory:
    """Makes mailboxes: `mailbox_factory()`, each with an address that nobody else has."""

    def __init__(self, accounts: Accounts, stem: str, patience: float = PATIENCE) -> None:
        self._accounts, self._stem, self._patience = accounts, stem, patience
        self.made: list[Mailbox] = []

    def __call__(self, name: str = "", *, domain: str | None = None, quota: int | None = None) -> Mailbox:
        """A new mailbox; `name` is what its address begins with, `quota` how much it holds, in bytes.

        Raises InputError for what cannot be an address of the lab.
        """
        lab = self._accounts.lab
        stem = re.sub(r"[^a-z0-9]+", "-", (name or self._stem).lower())[:30].strip("-") or "mailbox"
        domain = domain or lab.definition.domains[0].name
        address = f"{stem}-{_random.token_hex(4)}@{domain}"
        password = self._accounts.add(address, quota=quota, fresh=True)
        mailbox = Mailbox(lab, address, Password(password.reveal()), self._patience)
        self.made.append(mailbox)
        return mailbox

    def close(self) -> None:
        """Close the connections of all that were made."""
        for mailbox in self.made:
            mailbox.close()


# How long its journey may go on when a mail is in the mailbox, in seconds.
_SETTLED = 2.0


def journey(lab: RunningLab, name: str) -> Journey:
    """The journey of the message with this Message-ID or queue id, once the servers have logged all of it.

    Raises AssertionError when there is none.
    """
    __tracebackhide__ = True
    from mailstack import tracing

    if not name:
        raise AssertionError("a message that has neither a Message-ID nor been through a Postfix cannot be traced")
    found = tracing.of_lab(lab, name)
    if found and found[-1].settled:
        return found[-1]
    for each in tracing.follow(lab, name, Deadline.after(_SETTLED)):
        found += [each] if each else []
    if not found:
        raise AssertionError(f"the logs of lab “{lab.name}” do not know {name}")
    return found[-1]


def _called(criteria: Criteria) -> str:
    return f"mail {criteria}".rstrip()
