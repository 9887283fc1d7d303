"""Sending of mails over parallel connections: a thread each, all logged in before the first mail is sent."""

from __future__ import annotations

import itertools
import re
import smtplib
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from mailstack.errors import CheckFailed, InputError
from mailstack.lab.running import RunningLab
from mailstack.load.ledger import Posted
from mailstack.load.plan import Mails, Plan
from mailstack.protocol import smtp, trust
from mailstack.secret import Secret

# A connection gives up after so many refused mails in a row.
GIVE_UP = 3
# The failure of a connection beyond Postfix's limits (anvil(8), master(5)).
_TOO_MANY = re.compile(r"421 |.*timed out")
# Settings of postconf(5) that limit the connections of one client, with their defaults.
LIMITS = {"smtpd_client_connection_count_limit": 50, "default_process_limit": 100}


def too_many(wanted: int, taken: int, why: str) -> InputError:
    """Return the error for more connections than Postfix takes."""
    return InputError(
        f"Postfix takes {taken} connections of the {wanted} asked for: {why}",
        remedy=f"--connections {taken}; for more, an overlay's settings of postfix: {', '.join(LIMITS)}",
    )


@dataclass(slots=True)
class _Line:
    """A connection, and the mails sent over it."""

    user: str
    session: smtp.Smtp | None = None
    thread: threading.Thread | None = None
    posted: list[Posted] = field(default_factory=list)
    taken: int = 0
    made: bool = False
    failure: str = ""  # why it could not be made, at first or later


class Sending:
    """Sends the mails of a plan; `posted` has those that were answered so far."""

    def __init__(self, lab: RunningLab, plan: Plan, mails: Mails, users: Mapping[str, Secret]) -> None:
        self._plan, self._mails, self._users = plan, mails, users
        self._dial, self._context = smtp.dial_to(lab.endpoints["submission"]), trust.tls_context(lab.ca_file)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self._begun = 0.0  # monotonic clock, in seconds
        self._processor = time.process_time()
        self.processor_seconds = 0.0  # of this process, from start to end of sending
        self._lines = [_Line(user) for user, _ in zip(itertools.cycle(users), range(plan.connections))]

    def connect(self) -> None:
        """Make the connections, each logged in.

        Raises CheckFailed when there is none, InputError when Postfix does not take so many.
        """
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._log_in, self._lines))
        turned_away = [line.failure for line in self._lines if _TOO_MANY.match(line.failure)]
        if self.connected and turned_away:
            raise too_many(len(self._lines), self.connected, turned_away[0])
        if not self.connected:
            raise CheckFailed(f"no connection could be made: {next(iter(self.failures))}")

    def start(self) -> None:
        """Start sending."""
        self._processor = time.process_time()
        self._begun = time.monotonic()
        for line in self._lines:
            if line.session:
                line.thread = threading.Thread(target=self._work, args=(line,), daemon=True)
                line.thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until all planned mails have been sent; False when that takes more than `seconds`."""
        end = time.monotonic() + seconds
        for line in self._lines:
            if line.thread:
                line.thread.join(max(0.0, end - time.monotonic()))
        return not any(line.thread and line.thread.is_alive() for line in self._lines)

    def stop(self, patience: float) -> None:
        """Send no more. Replies are awaited for `patience` seconds; then the connections are cut."""
        self._stop.set()
        if not self.wait(patience):
            for line in self._lines:
                if line.session and line.session.sock:
                    with suppress(OSError):
                        line.session.sock.shutdown(socket.SHUT_RDWR)
            self.wait(patience)
        self.processor_seconds = time.process_time() - self._processor
        for line in self._lines:
            if line.session:
                line.session.close()

    @property
    def connected(self) -> int:
        """The number of connections that were made."""
        return sum(line.made for line in self._lines)

    @property
    def failures(self) -> Counter[str]:
        """Why connections could not be made → how many."""
        return Counter(line.failure for line in self._lines if line.failure)

    @property
    def posted(self) -> list[Posted]:
        """Every mail that was accepted or refused so far."""
        return [each for line in self._lines for each in line.posted]

    @property
    def sent(self) -> int:
        """The number of mails that were accepted so far."""
        return sum(line.taken for line in self._lines)

    def _log_in(self, line: _Line) -> bool:
        """Connect and log in; False, with the failure noted, when that fails."""
        try:
            line.session = smtp.Smtp(self._dial, name="localhost", tls="starttls", context=self._context)
            line.session.login(line.user, self._users[line.user].reveal())
        except (smtplib.SMTPException, OSError) as error:
            code, text = _said(error)
            line.failure = f"{code} {text}" if code else text
            if line.session:
                line.session.close()
                line.session = None
            return False
        line.made = True
        return True

    def _work(self, line: _Line) -> None:
        in_vain = 0
        while in_vain < GIVE_UP and line.session and (number := self._take()) is not None:
            each = self._mails.mail(number, line.user)
            begun = time.time()
            try:
                code, reply = line.session.transaction(each.sender, each.recipient, each.data, each.size)
            except (smtplib.SMTPException, OSError) as error:
                code, reply = _said(error)
            line.posted.append(Posted(each.message_id, each.recipient, begun, time.time(), code, reply))
            if line.posted[-1].accepted:
                line.taken += 1
                in_vain = 0
            else:
                in_vain += 1
            if code in (0, 421) and not self._stop.is_set():
                line.session.close()
                self._log_in(line)
        if line.session:
            with suppress(smtplib.SMTPException, OSError):
                line.session.quit()

    def _take(self) -> int | None:
        """Wait until the next mail is due; return its number, or None when there is none."""
        with self._lock:
            number = self._next
            self._next += 1
        if self._plan.messages is not None and number >= self._plan.messages:
            return None
        due = self._plan.due(number)
        ends = self._plan.seconds
        if ends is not None and due >= ends:
            return None
        if self._stop.wait(max(0.0, self._begun + due - time.monotonic())):
            return None
        return None if ends is not None and time.monotonic() - self._begun >= ends else number


def _said(error: Exception) -> tuple[int, str]:
    """Return code and text of the reply in an error of `smtplib`; 0 and the failure where there is none."""
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code, smtp.as_text(error.smtp_error)
    return 0, f"the connection was lost: {error}"
