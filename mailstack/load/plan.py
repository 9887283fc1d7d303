"""The plan of a load, and the mails that make it: pure functions of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate

from mailstack.errors import InputError

# The duration of a load without a given bound.
SECONDS = 10.0
# Bytes: beyond this the load measures this machine's memory.
LARGEST = 100 * 1024**2

_LINE = b"The quick brown fox jumps over the lazy dog; 0123456789, and so on and on.\r\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """The number and size of mails, connections, mailboxes, and the rate."""

    connections: int = 8
    messages: int | None = None  # whichever of the two comes first ends it
    seconds: float | None = SECONDS
    size: int = 2048  # bytes of a mail as it is sent, its header among them
    rate: float | None = None  # messages/s at most, over all connections; None: as fast as they are taken
    mailboxes: int = 50
    patience: float = 60.0  # seconds that mail may be under way after the last was sent

    def __post_init__(self) -> None:
        if self.size > LARGEST:
            raise InputError("a mail of a load has at most 100M")
        if self.messages is None and self.seconds is None:
            raise InputError("a load ends by itself: after so many messages, or seconds")

    def due(self, number: int) -> float:
        """Return the earliest moment of the mail with this number (from 0), in seconds from the start."""
        return number / self.rate if self.rate else 0.0


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail of a load: its identity, its envelope, and the bytes that are sent after DATA."""

    message_id: str
    sender: str
    recipient: str
    data: tuple[bytes, ...]  # in pieces, so that the body is there once for all of them

    @property
    def size(self) -> int:
        """Bytes, without the line that ends it."""
        return sum(map(len, self.data)) - len(END)


END = b".\r\n"  # RFC 5321, section 4.1.1.4; the line before it has ended


class Mails:
    """Makes the mails of a load: spread evenly over the addresses, each from its neighbour."""

    def __init__(self, run: str, addresses: Sequence[str], size: int) -> None:
        self._run, self._addresses, self._size = run, addresses, size
        self._bodies: dict[int, bytes] = {}

    def mail(self, number: int, sender: str) -> Mail:
        """Make the mail with this number, from `sender`."""
        recipient = self._addresses[number % len(self._addresses)]
        message_id = f"<{number}.{self._run}@{sender.rpartition('@')[2]}>"
        header = (
            f"From: {sender}\r\nTo: {recipient}\r\nSubject: Load {self._run}, mail {number}\r\n"
            f"Date: {formatdate(localtime=True)}\r\nMessage-ID: {message_id}\r\n\r\n"
        ).encode()
        room = max(2, self._size - len(header))
        # Headers differ in length by a digit or two, so there are a few bodies.
        if room not in self._bodies:
            self._bodies[room] = body(room)
        return Mail(message_id, sender, recipient, (header, self._bodies[room], END))


def body(size: int) -> bytes:
    """Return `size` bytes (2 at least) of text; no line begins with a dot or is longer than 78 characters."""
    text = (_LINE * (size // len(_LINE) + 1))[: size - 2]
    # A line end may have been cut in its middle.
    return (text[:-1] + b" " if text.endswith(b"\r") else text) + b"\r\n"
