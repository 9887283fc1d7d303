"""The log of a service, read once for all checks that wait for a line, and the lines about one mail."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress

from mailstack.engine.engine import Engine
from mailstack.engine.following import Log
from mailstack.errors import MailstackError
from mailstack.model import Deadline


class ServiceLog:
    """The log of a container since `since` (seconds of the epoch; None: from the start), until it is closed."""

    def __init__(self, engine: Engine, container: str, since: float | None = None) -> None:
        self._lines: list[str] = []
        self._ended = False
        self._more = threading.Condition()
        self._log = Log(engine, container, since)
        threading.Thread(target=self._follow, daemon=True).start()

    def lines(self, deadline: Deadline) -> Iterator[str]:
        """Yield every line so far, then new lines, until the log ends or the deadline passes."""
        seen = 0
        while True:
            with self._more:
                while seen == len(self._lines) and not self._ended and not deadline.passed():
                    self._more.wait(deadline.remaining())
                new = self._lines[seen:]
            if not new:
                return
            seen += len(new)
            yield from new

    def close(self) -> None:
        """Close the connection to the engine."""
        self._log.close()

    def _follow(self) -> None:
        partial = b""
        # The connection may be closed during a read, and the connection to the host may be lost.
        with suppress(OSError, ValueError, AttributeError, MailstackError):
            for piece in self._log:
                *whole, partial = (partial + piece).split(b"\n")
                with self._more:
                    self._lines += [line.partition(b" ")[2].decode(errors="replace") for line in whole]
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()


def mail_lines(log: Iterable[str], message_id: str, text: str) -> tuple[list[str], str]:
    """Return Postfix's lines about a mail up to one that contains `text`, and that line; "" if the log ends before.

    The lines are found by the mail's queue ids.
    """
    id_line = re.compile(rf"cleanup\[\d+\]: (\w+): message-id={re.escape(message_id)}$")
    seen: list[str] = []
    lines: list[str] = []
    ids: set[str] = set()
    for line in log:
        seen.append(line)
        if match := id_line.search(line):
            ids.add(f": {match[1]}: ")
        if any(each in line for each in ids):
            lines = [other for other in seen if any(each in other for each in ids)]
            if hits := [each for each in lines if text in each]:
                return lines, hits[0]
    return lines, ""
