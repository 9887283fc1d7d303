"""The plan of a load, and the mails that make it: pure functions of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate

from mailstack.errors import InputError

# The default duration of a load without a bound, in seconds.
SECONDS = 10.0
# Bytes: a larger mail would measure this machine's memory.
LARGEST = 100 * 1024**2

_LINE = b"The quick brown fox jumps over the lazy dog; 0123456789, and so on and on.\r\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """The number and size of mails, connections, mailboxes, and the rate."""

    connections: int = 8
    messages: int | None = None  # the first of the two limits ends the load
    seconds: float | None = SECONDS
    size: int = 2048  # bytes of a mail as sent, with its header
    rate: float | None = None  # messages/s at most, over all connections; None: no limit
    mailboxes: int = 50
    patience: float = 60.0  # seconds to wait for mails under way after the last was sent

    def __post_init__(self) -> None:
        if self.size > LARGEST:
            raise InputError("the size of a load's mails must not exceed 100M")
        if self.messages is None and self.seconds is None:
            raise InputError("a load needs a limit: a number of messages, or a duration")

    def due(self, number: int) -> float:
        """Return the earliest moment of the mail with this number (from 0), in seconds from the start."""
        return number / self.rate if self.rate else 0.0


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail of a load: its identity, its envelope, and the bytes that are sent after DATA."""

    message_id: str
    sender: str
    recipient: str
    data: tuple[bytes, ...]  # in pieces, so that all mails share one body

    @property
    def size(self) -> int:
        """Size in bytes, without the final line."""
        return sum(map(len, self.data)) - len(END)


END = b".\r\n"  # RFC 5321, section 4.1.1.4; the line before it is complete


class Mails:
    """Creates the mails of a load, spread evenly over the addresses."""

    def __init__(self, run: str, addresses: Sequence[str], size: int) -> None:
        self._run, self._addresses, self._size = run, addresses, size
        self._bodies: dict[int, bytes] = {}

    def mail(self, number: int, sender: str) -> Mail:
        """Make the mail with this number, from `sender`."""
        recipient = self._addresses[number % len(self._addresses)]
        message_id = f"<{number}.load-{self._run}@{sender.rpartition('@')[2]}>"
        header = (
            f"From: {sender}\r\nTo: {recipient}\r\nSubject: Load {self._run}, mail {number}\r\n"
            f"Date: {formatdate(localtime=True)}\r\nMessage-ID: {message_id}\r\n\r\n"
        ).encode()
        room = max(2, self._size - len(header))
        # The length of headers differs by a digit or two, so a few bodies are enough.
        if room not in self._bodies:
            self._bodies[room] = body(room)
        return Mail(message_id, sender, recipient, (header, self._bodies[room], END))


def body(size: int) -> bytes:
    """Return `size` bytes (2 at least) of text; no line begins with a dot or is longer than 78 characters."""
    text = (_LINE * (size // len(_LINE) + 1))[: size - 2]
    # The cut may have split a line end.
    return (text[:-1] + b" " if text.endswith(b"\r") else text) + b"\r\n"
