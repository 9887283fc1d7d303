"""Arrivals of mails: the time of each, from Dovecot's log, and at the end the contents of the mailboxes."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from mailstack.actions import mailboxes
from mailstack.engine.engine import Engine
from mailstack.engine.following import Log
from mailstack.errors import EngineError, HostError, MailstackError
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from mailstack.protocol import imap, trust
from mailstack.roles import Role
from mailstack.secret import Secret
from mailstack.trace.lines import parse

_SAVED = re.compile(
    rb"(?P<engine>\S+Z) (?:(?P<own>[\d-]{10} [\d:]{8}\.\d{6}) )?.*?msgid=(?P<id><[^>]+>): "
    rb"(?:saved mail to|stored mail into mailbox) "
)
_MAX_CLOCK_DIFFERENCE = 60.0  # seconds; time zones differ by more
# Mailboxes that are read in parallel: a reader and Dovecot keep two processors busy.
READERS = 4


def parse_saved(line: bytes) -> tuple[str, float] | None:
    """Return the Message-ID and the time, in seconds of the epoch, in Dovecot's log line about a saved mail.

    The line begins with the engine's time, which is up to a tenth of a second later than Dovecot's on a busy machine.
    Dovecot's time is in its own time zone; if that is not UTC, the engine's is used.
    """
    if not (found := _SAVED.match(line)):
        return None
    at = parse(f"{found['engine'].decode()} ").at or 0.0
    if found["own"]:
        own = parse(f"{found['own'].decode().replace(' ', 'T')}Z ").at
        at = own if own is not None and abs(at - own) <= _MAX_CLOCK_DIFFERENCE else at
    return found["id"].decode(errors="replace"), at


class Arrivals:
    """Follows Dovecot's log in a thread until it is closed: `saved` has the time of each mail.

    Dovecot writes the line when it has saved the mail, before it replies to Postfix.
    """

    def __init__(self, engine: Engine, container: str, since: float) -> None:
        self.saved: dict[str, float] = {}
        self._more = threading.Condition()
        self._log = Log(engine, container, since)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def wait_for(self, message_ids: Iterable[str], deadline: Deadline) -> bool:
        """Wait until all of these are saved; False when the deadline passes first."""
        with self._more:
            for each in message_ids:
                while each not in self.saved:
                    if deadline.passed():
                        return False
                    self._more.wait(deadline.remaining())
        return True

    def close(self) -> None:
        """Stop following."""
        self._log.close()
        self._thread.join(5.0)

    def _follow(self) -> None:
        # A connection closed during a read ends the log like any other end.
        with suppress(OSError, ValueError, AttributeError, EngineError):
            for piece in self._log:
                for line in piece.split(b"\n"):
                    if found := parse_saved(line):
                        with self._more:
                            self.saved.setdefault(*found)
                            self._more.notify_all()


def count_copies(lab: RunningLab, users: Mapping[str, Secret]) -> tuple[Mapping[str, Counter[str]], list[str]]:
    """Return the mails in the mailboxes (address → Message-ID → copies), and why others could not be read."""
    context = trust.tls_context(lab.ca_file)
    endpoint = lab.endpoints["imaps"]
    found: dict[str, Counter[str]] = {}
    failures: list[str] = []

    def read(user: str) -> None:
        if failures:  # one failure is enough: the others would wait as long
            return
        try:
            with imap.mailbox(endpoint, context, user, users[user]) as box:
                found[user] = Counter(mailboxes.identities(box))
        except MailstackError as error:
            failures.append(f"the mailbox of {user} could not be read: {error.whole()}")

    try:
        lab.one(Role.STORE)  # do not wait for a server that is stopped or paused
    except HostError as error:
        return {}, [f"the mailboxes could not be read: {error.whole()}"]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(read, users))
    return found, failures
