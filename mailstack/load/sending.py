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
from mailstack.load.ledger import SentMail
from mailstack.load.plan import Mails, Plan
from mailstack.protocol import smtp, trust
from mailstack.secret import Secret

# A connection gives up after so many refused mails in a row.
MAX_FAILURES = 3
# The failure of a connection beyond Postfix's limits (anvil(8), master(5)).
_TOO_MANY_CONNECTIONS = re.compile(r"421 |.*timed out")
# Settings of postconf(5) that limit the connections of one client, with their defaults.
LIMITS = {"smtpd_client_connection_count_limit": 50, "default_process_limit": 100}


def too_many_connections(requested: int, accepted: int, reason: str) -> InputError:
    """Return the error for more connections than Postfix takes."""
    return InputError(
        f"Postfix accepts only {accepted} of the {requested} requested connections: {reason}",
        remedy=f"use --connections {accepted}, or raise Postfix's limits in an overlay: {', '.join(LIMITS)}",
    )


@dataclass(slots=True)
class _Connection:
    """A connection, and the mails sent over it."""

    user: str
    session: smtp.Smtp | None = None
    thread: threading.Thread | None = None
    answered: list[SentMail] = field(default_factory=list)
    accepted: int = 0
    connected: bool = False
    failure: str = ""  # why it could not be made, at first or later


class Sending:
    """Sends the mails of a plan; `answered` has those that were answered so far."""

    def __init__(self, lab: RunningLab, plan: Plan, mails: Mails, users: Mapping[str, Secret]) -> None:
        self._plan, self._mails, self._users = plan, mails, users
        self._dial, self._context = smtp.dial_to(lab.endpoints["submission"]), trust.tls_context(lab.ca_file)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self._started = 0.0  # monotonic clock, in seconds
        self._processor = time.process_time()
        self.processor_seconds = 0.0  # of this process, from start to end of sending
        self._connections = [_Connection(user) for user, _ in zip(itertools.cycle(users), range(plan.connections))]

    def connect(self) -> None:
        """Make the connections, each logged in.

        Raises CheckFailed when there is none, InputError when Postfix does not take so many.
        """
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._log_in, self._connections))
        rejected = [failure for failure in self.failures if _TOO_MANY_CONNECTIONS.match(failure)]
        if self.connected and rejected:
            raise too_many_connections(len(self._connections), self.connected, rejected[0])
        if not self.connected:
            raise CheckFailed(f"no connection could be made: {next(iter(self.failures))}")

    def start(self) -> None:
        """Start sending."""
        self._processor = time.process_time()
        self._started = time.monotonic()
        for connection in self._connections:
            if connection.session:
                connection.thread = threading.Thread(target=self._work, args=(connection,), daemon=True)
                connection.thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until all planned mails have been sent; False when that takes more than `seconds`."""
        end = time.monotonic() + seconds
        for connection in self._connections:
            if connection.thread:
                connection.thread.join(max(0.0, end - time.monotonic()))
        return not any(connection.thread and connection.thread.is_alive() for connection in self._connections)

    def stop(self, patience: float) -> None:
        """Send no more. Replies are awaited for `patience` seconds; then the connections are cut."""
        self._stop.set()
        if not self.wait(patience):
            for connection in self._connections:
                if connection.session and connection.session.sock:
                    with suppress(OSError):
                        connection.session.sock.shutdown(socket.SHUT_RDWR)
            self.wait(patience)
        self.processor_seconds = time.process_time() - self._processor
        for connection in self._connections:
            if connection.session:
                connection.session.close()

    @property
    def connected(self) -> int:
        """The number of connections that were made."""
        return sum(connection.connected for connection in self._connections)

    @property
    def failures(self) -> Counter[str]:
        """Why connections could not be made → how many."""
        return Counter(connection.failure for connection in self._connections if connection.failure)

    @property
    def answered(self) -> list[SentMail]:
        """Every mail that was accepted or refused so far."""
        return [each for connection in self._connections for each in connection.answered]

    @property
    def sent(self) -> int:
        """The number of mails that were accepted so far."""
        return sum(connection.accepted for connection in self._connections)

    def _log_in(self, connection: _Connection) -> bool:
        """Connect and log in; False, with the failure noted, when that fails."""
        try:
            connection.session = smtp.Smtp(self._dial, name="localhost", tls="starttls", context=self._context)
            connection.session.login(connection.user, self._users[connection.user].reveal())
        except (smtplib.SMTPException, OSError) as error:
            code, text = _reply_of(error)
            connection.failure = f"{code} {text}" if code else text
            if connection.session:
                connection.session.close()
                connection.session = None
            return False
        connection.connected = True
        return True

    def _work(self, connection: _Connection) -> None:
        failures_in_a_row = 0
        while failures_in_a_row < MAX_FAILURES and connection.session and (number := self._next_number()) is not None:
            each = self._mails.mail(number, connection.user)
            started = time.time()
            try:
                code, reply = connection.session.transaction(each.sender, each.recipient, each.data, each.size)
            except (smtplib.SMTPException, OSError) as error:
                code, reply = _reply_of(error)
            connection.answered.append(SentMail(each.message_id, each.recipient, started, time.time(), code, reply))
            if connection.answered[-1].accepted:
                connection.accepted += 1
                failures_in_a_row = 0
            else:
                failures_in_a_row += 1
            if code in (0, 421) and not self._stop.is_set():
                connection.session.close()
                self._log_in(connection)
        if connection.session:
            with suppress(smtplib.SMTPException, OSError):
                connection.session.quit()

    def _next_number(self) -> int | None:
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
        if self._stop.wait(max(0.0, self._started + due - time.monotonic())):
            return None
        return None if ends is not None and time.monotonic() - self._started >= ends else number


def _reply_of(error: Exception) -> tuple[int, str]:
    """Return code and text of the reply in an error of `smtplib`; 0 and the failure where there is none."""
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code, smtp.as_text(error.smtp_error)
    return 0, f"the connection was lost: {error}"
