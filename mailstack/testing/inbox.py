"""The mails of a test's mailbox as seen over IMAP, and their journeys."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from mailstack.errors import MailstackError
from mailstack.model import Deadline
from mailstack.secret import Secret
from mailstack.testing.received import Message
from mailstack.testing.settings import Password

if TYPE_CHECKING:
    from imap_tools import BaseMailBox

    from mailstack.lab.running import RunningLab
    from mailstack.trace.journey import Journey

# How many seconds a journey may go on after the mail has arrived in the mailbox.
_SETTLE_SECONDS = 2.0


class Inbox:
    """The mails seen so far, and an IMAP connection: opened when first needed, and reopened when it is lost."""

    def __init__(self, lab: RunningLab, address: str, password: Password) -> None:
        self._lab, self._address, self._password = lab, address, password
        self._messages: dict[int, Message] = {}  # seen since the last `clear`, by UID
        self.cleared: list[Message] = []
        self._context: AbstractContextManager[BaseMailBox] | None = None
        self._box: BaseMailBox | None = None

    def close(self) -> None:
        """Log out, if the mailbox is open. Errors of a broken lab are ignored."""
        context, self._context, self._box = self._context, None, None
        if context:
            with suppress(MailstackError):
                context.__exit__(None, None, None)

    @contextmanager
    def connected(self) -> Iterator[BaseMailBox]:
        """Yield the mailbox with its inbox selected. Raises CheckFailed, HostError."""
        from mailstack.protocol import imap, trust

        if self._context is None or self._box is None:
            tls_context = trust.cached_context(self._lab.ca_file.read_text(encoding="utf-8"))
            context = imap.mailbox(self._lab.endpoints["imaps"], tls_context, self._address, Secret(self._password))
            self._box = context.__enter__()
            self._context = context
        try:
            yield self._box
        except BaseException:
            broken, self._context, self._box = self._context, None, None
            if broken:
                broken.__exit__(*sys.exc_info())
            raise

    def new(self, after: int = 0) -> list[Message]:
        """Return the mails that arrived after the one with this UID, oldest first."""
        from mailstack.actions import mailboxes
        from mailstack.protocol import idle

        with self.connected() as box:
            idle.refresh(box)
            return [
                self._messages.setdefault(mail.uid, Message(mail, self._journey))
                for mail in mailboxes.messages(box, after)
            ]

    def wait_for_change(self, deadline: Deadline) -> None:
        """Wait for another mail, until the deadline."""
        from mailstack.protocol import idle

        with suppress(MailstackError), self.connected() as box:  # the next poll raises the error
            idle.wait(box, deadline)

    def seen(self) -> list[Message]:
        """Return the mails seen since the last `clear`, oldest first. Asks no server."""
        return [message for _, message in sorted(self._messages.items())]

    def clear(self, messages: Sequence[Message]) -> None:
        """Delete these messages, and forget all mails seen."""
        with self.connected() as box:
            box.delete([str(message.uid) for message in messages])
        self.cleared += self._messages.values()
        self._messages.clear()

    def _journey(self, name: str) -> Journey:
        __tracebackhide__ = True
        return journey(self._lab, name)


def journey(lab: RunningLab, name: str) -> Journey:
    """Return the journey of a message by its Message-ID or queue id, once the servers have logged all of it.

    Raises AssertionError when the logs have none.
    """
    __tracebackhide__ = True
    from mailstack.actions import tracing

    if not name:
        raise AssertionError("the message cannot be traced: it has neither a Message-ID nor a queue id")
    found = tracing.of_lab(lab, name)
    if found and found[-1].settled:
        return found[-1]
    for each in tracing.follow(lab, name, Deadline.after(_SETTLE_SECONDS)):
        found += [each] if each else []
    if not found:
        raise AssertionError(f"the logs of lab “{lab.name}” do not mention {name}")
    return found[-1]
