"""The log of a service, followed once for all that wait for a line in it, and the lines of one mail."""

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
    """What a container has logged since `since` (seconds of the epoch; None: ever), until it is closed."""

    def __init__(self, engine: Engine, container: str, since: float | None = None) -> None:
        self._lines: list[str] = []
        self._ended = False
        self._more = threading.Condition()
        self._log = Log(engine, container, since)
        threading.Thread(target=self._follow, daemon=True).start()

    def lines(self, deadline: Deadline) -> Iterator[str]:
        """Yield every line so far, then new ones, until the log ends or the deadline passes."""
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
        begun = b""
        # The connection may be closed while it is read, and the host may be lost.
        with suppress(OSError, ValueError, AttributeError, MailstackError):
            for piece in self._log:
                *whole, begun = (begun + piece).split(b"\n")
                with self._more:
                    self._lines += [line.partition(b" ")[2].decode(errors="replace") for line in whole]
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()


def about(log: Iterable[str], message_id: str, wanted: str) -> tuple[list[str], str]:
    """Return a Postfix's lines about a mail as soon as one contains `wanted`, and that one; "" when the log ends.

    The lines are found by the mail's queue ids.
    """
    named = re.compile(rf"cleanup\[\d+\]: (\w+): message-id={re.escape(message_id)}$")
    seen: list[str] = []
    lines: list[str] = []
    ids: set[str] = set()
    for line in log:
        seen.append(line)
        if match := named.search(line):
            ids.add(f": {match[1]}: ")
        if any(each in line for each in ids):
            lines = [other for other in seen if any(each in other for each in ids)]
            if hits := [each for each in lines if wanted in each]:
                return lines, hits[0]
    return lines, ""
