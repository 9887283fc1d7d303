"""Mails as they arrive: when each was saved, by Dovecot's log, and in the end which are in the mailboxes."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from mailstack import mail, mailboxes
from mailstack.engine import Engine
from mailstack.errors import EngineError, MailstackError
from mailstack.following import Log
from mailstack.model import Deadline
from mailstack.running import RunningLab
from mailstack.secret import Secret
from mailstack.trace.lines import parse

_SAVED = re.compile(rb"msgid=(<[^>]+>): (?:saved mail to|stored mail into mailbox) ")
# Mailboxes that are read side by side: there are two processors, and two programs to each of them.
READERS = 4


class Arrivals:
    """When Dovecot saved each mail: followed in its log from now on, in a thread of its own, until it is closed.

    The time is the one at which the engine read the line, so a fraction of a millisecond after Dovecot had the mail.
    """

    def __init__(self, engine: Engine, container: str, since: float) -> None:
        self.saved: dict[str, float] = {}
        self._more = threading.Condition()
        self._log = Log(engine, container, since)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def wait_for(self, message_ids: Iterable[str], deadline: Deadline) -> bool:
        """Whether all of these were saved before the deadline."""
        with self._more:
            for each in message_ids:
                while each not in self.saved:
                    if deadline.passed():
                        return False
                    self._more.wait(deadline.remaining())
        return True

    def close(self) -> None:
        """Follow no longer."""
        self._log.close()
        self._thread.join(5.0)

    def _follow(self) -> None:
        # A connection that is closed while it is read ends the log like any other end.
        with suppress(OSError, ValueError, AttributeError, EngineError):
            for piece in self._log:
                for line in piece.split(b"\n"):
                    if found := _SAVED.search(line):
                        at = parse(line.decode(errors="replace")).at
                        with self._more:
                            self.saved.setdefault(found[1].decode(errors="replace"), at or 0.0)
                            self._more.notify_all()


def in_mailboxes(lab: RunningLab, users: Mapping[str, Secret]) -> tuple[dict[str, dict[str, int]], list[str]]:
    """What is in the mailboxes: address → Message-ID → how often; and why others could not be read."""
    context = mail.tls_context(lab.ca_file)
    endpoint = lab.endpoints["imaps"]
    found: dict[str, dict[str, int]] = {}
    failures: list[str] = []

    def read(user: str) -> None:
        if failures:  # one is enough: the others would wait as long
            return
        try:
            with mail.mailbox(endpoint, context, user, users[user]) as box:
                counted: dict[str, int] = {}
                for each in mailboxes.identities(box):
                    counted[each] = counted.get(each, 0) + 1
                found[user] = counted
        except MailstackError as error:
            failures.append(error.message)

    try:
        lab.service("dovecot")  # of one that does not run, or is paused, nobody waits for an answer
    except MailstackError as error:
        return {}, [error.message]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(read, users))
    return found, failures
