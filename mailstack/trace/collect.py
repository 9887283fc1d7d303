"""The lines of some messages, out of logs of any length, in memory that depends on the messages alone.

A message is known by several names: its Message-ID, and the queue id that each MTA gives it. A line that is kept may
name more of them, so the logs are read again until no new name turns up: two or three times, as a rule.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from mailstack.trace.events import QUEUE_ID

# source, line: what the logs are read as, as often as needed
Lines = Iterable[tuple[str, str]]

# Messages that are followed at most, when a text is in the lines of many: the newest.
MESSAGES = 200
# Passes over the logs: a mail that crosses more MTAs than this has other troubles (RFC 5321, section 6.3: 100 hops).
PASSES = 40
# Processes whose connection is remembered until they log what went over it.
PROCESSES = 4096

_NAMES = re.compile(
    rf"\]: ({QUEUE_ID}): |message-id=<?([^>,\s]+)|msgid=<?([^>:\s]+)|queued as ({QUEUE_ID})\b"
    rf"|notification: ({QUEUE_ID})$|orig_id=({QUEUE_ID})|forwarded as ({QUEUE_ID})\b"
)
_PROCESS = re.compile(r"(\S+ )?(\S+\[\d+\]): ")
_BEGINS = re.compile(rf"(?:pickup|smtpd)\[\d+\]: ({QUEUE_ID}): (?:uid=|client=)")


@dataclass(frozen=True, slots=True)
class Raw:
    """A line that was kept, where it stood, and what secured the connection of the process that logged it."""

    source: str
    position: int
    text: str
    tls: str = ""


@dataclass(slots=True)
class Collector:
    """Keeps the lines of the messages whose names it knows, and learns names from them."""

    names: set[str] = field(default_factory=set)
    kept: list[Raw] = field(default_factory=list)
    _secured: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def feed(self, source: str, position: int, text: str) -> bool:
        """Look at a line; whether it was kept."""
        if "]: NOQUEUE: " in text or "TLS connection established" in text or "]: connect from " in text:
            self._connection(source, text)
            return False
        found = names(text)
        if not found or self.names.isdisjoint(found):
            return False
        self.names.update(found)
        self.kept.append(Raw(source, position, text, self._secured.get(_process(source, text), "")))
        return True

    def take(self, source: str, position: int, text: str) -> None:
        """Keep a line that has no name: a refusal before there was a queue id."""
        self.kept.append(Raw(source, position, text, self._secured.get(_process(source, text), "")))

    def _connection(self, source: str, text: str) -> None:
        key = _process(source, text)
        if "TLS connection established" in text:
            self._secured[key] = text
            self._secured.move_to_end(key)
            while len(self._secured) > PROCESSES:
                self._secured.popitem(last=False)
        elif "]: connect from " in text:
            self._secured.pop(key, None)


def names(text: str) -> list[str]:
    """The queue ids and Message-IDs in a line."""
    return [name for groups in _NAMES.findall(text) for name in groups if name and name != "NOQUEUE"]


def begins(text: str) -> str | None:
    """The queue id under which a line says that a message came in."""
    found = _BEGINS.search(text)
    return found[1] if found else None


def _process(source: str, text: str) -> str:
    found = _PROCESS.search(text)
    return f"{source} {found[1] or ''}{found[2]}" if found else source


def collect(read: Callable[[], Lines], seeds: Iterable[str], refusals: Sequence[Raw] = ()) -> list[Raw]:
    """Every line of the messages that `seeds` name, in the order in which they were read; `read` begins anew."""
    known = {seed.strip("<>") for seed in seeds}
    kept: list[Raw] = []
    for _ in range(PASSES if known else 0):
        collector = Collector(set(known))
        for position, (source, text) in enumerate(read()):
            collector.feed(source, position, text)
        kept = collector.kept
        if collector.names == known:
            break
        known = collector.names
    return sorted([*kept, *refusals], key=lambda raw: raw.position)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came upon: names of messages, and refusals that have none; `more` that there were others before."""

    seeds: tuple[str, ...]
    refusals: tuple[Raw, ...] = ()
    more: bool = False


def search(read: Callable[[], Lines], query: str, limit: int = MESSAGES) -> Found:
    """The messages with `query` (a Message-ID, a queue id, or any text, whatever its case) in a line: the newest."""
    if exact := _exact(read, query):
        return exact
    wanted = query.lower()
    return _last(read, lambda text: wanted in text.lower(), limit)


def _exact(read: Callable[[], Lines], query: str) -> Found | None:
    """`query` as a name, if any line has it as one."""
    name = query.strip().strip("<>")
    for _, text in read():
        if name in text and name in names(text):
            return Found((name,))
    return None


def latest(read: Callable[[], Lines], limit: int = 30) -> Found:
    """The last messages that were handed in or accepted, host by host."""
    per_host: dict[str, deque[str]] = {}
    refusals: deque[Raw] = deque(maxlen=limit)
    for position, (source, text) in enumerate(read()):
        if found := begins(text):
            host = _process(source, text).rpartition(" ")[0]
            per_host.setdefault(host, deque(maxlen=limit)).append(found)
        elif "]: NOQUEUE: " in text and "reject: " in text:
            refusals.append(Raw(source, position, text))
    return Found(tuple(name for each in per_host.values() for name in each), tuple(refusals))


def _last(read: Callable[[], Lines], matches: Callable[[str], bool], limit: int) -> Found:
    seeds: OrderedDict[str, None] = OrderedDict()
    refusals: deque[Raw] = deque(maxlen=limit)
    more = False
    for position, (source, text) in enumerate(read()):
        if not matches(text):
            continue
        if "]: NOQUEUE: " in text:
            more = more or len(refusals) == limit
            if "reject: " in text:
                refusals.append(Raw(source, position, text))
        elif found := names(text):
            seeds[found[0]] = None
            seeds.move_to_end(found[0])
            if len(seeds) > limit:
                seeds.popitem(last=False)
                more = True
    return Found(tuple(seeds), tuple(refusals), more)
