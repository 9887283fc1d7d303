"""Collection of the lines of some messages from logs of any length; memory depends only on the messages.

A message has several names: its Message-ID, and the queue id that each MTA gives it. A collected line may contain more
of them, so the logs are read again until no new name turns up: usually two or three times.
"""

from __future__ import annotations

import dataclasses
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mailstack.trace.events import QUEUE_ID

# source, line: the logs, which are read several times
Lines = Iterable[tuple[str, str]]

# The most messages to follow when many match a text: the newest.
MESSAGES = 200
# The most passes over the logs. A mail that crosses more MTAs than this has other problems (RFC 5321, section 6.3: 100
# hops).
PASSES = 40
# The most refusals without a queue id to remember. The newest may be replies to an MTA whose lines are in these logs.
MAX_REFUSALS = 1000
# The most lines of one process to keep until it logs the message that they belong to.
MAX_PENDING_LINES = 10
# The most processes whose connection is remembered until they log a delivery over it.
MAX_PROCESSES = 4096

# Names follow these words; besides, a queue id begins most lines of Postfix. A search for the words takes a tenth of
# the time of one expression for all of them.
_ID = re.compile(rf"({QUEUE_ID})\b")
_MARKED = (
    ("message-id=", re.compile(r"<?([^>,\s]+)")),
    ("msgid=", re.compile(r"<?([^>:\s]+)")),
    ("queued as ", _ID),
    ("forwarded as ", _ID),
    (" notification: ", _ID),
    ("orig_id=", _ID),
)
_LEADING_ID = re.compile(rf"{QUEUE_ID}(?=: )")
# Lines of smtp(8) and lmtp(8) about a connection, before they name its message.
_CLIENT = re.compile(r"/(?:smtp|lmtp)\[\d+\]: ")
_ATTEMPTED = re.compile(rf"(?:smtp|lmtp)\[\d+\]: ({QUEUE_ID}): to=<")
_RECEIVED = re.compile(rf"(?:pickup|smtpd)\[\d+\]: ({QUEUE_ID}): (?:uid=|client=)")


@dataclass(frozen=True, slots=True)
class Raw:
    """A collected line, its position, and the line that tells the TLS of its process's connection."""

    source: str
    position: int
    text: str
    tls: str = ""
    queue_id: str = ""  # of a line that was logged before its message had one
    unconfirmed: bool = False  # a refusal that was not searched for, but may belong to one of the messages


@dataclass(frozen=True, slots=True)
class Collected:
    """The lines of some messages, in the order of reading, and which parts of the mail system the logs cover."""

    raws: tuple[Raw, ...]
    hosts: frozenset[str] = frozenset()  # hosts that logged SMTP connections
    mailboxes: bool = False  # whether there are lines of Dovecot's delivery


@dataclass(slots=True)
class Collector:
    """Collects the lines of the messages whose names it knows, and learns more names from them."""

    names: set[str] = field(default_factory=set)
    kept: list[Raw] = field(default_factory=list)
    refusals: deque[Raw] = field(default_factory=lambda: deque(maxlen=MAX_REFUSALS))
    hosts: set[str] = field(default_factory=set)
    mailboxes: bool = False
    # Lines with other names, kept in case one of them becomes known. Has length 0 if the logs can be read again.
    recent: deque[tuple[list[str], list[Raw]]] = field(default_factory=lambda: deque(maxlen=0))
    _tls_lines: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _pending: dict[str, deque[Raw]] = field(default_factory=dict)

    def feed(self, source: str, position: int, text: str) -> bool:
        """Process a line; return whether it was collected."""
        self.mailboxes = self.mailboxes or "lmtp(" in text
        if is_refusal(text):
            self.refusals.append(Raw(source, position, text, self._tls(source, text), unconfirmed=True))
            return False
        found = names(text)
        if not found:
            self._remember(source, position, text)
            return False
        if self.names.isdisjoint(found):
            if self.recent.maxlen:
                self.recent.append((found, self._with_context(source, position, text)))
            elif self._pending:
                self._with_context(source, position, text)
            return False
        self.kept += self._with_context(source, position, text)
        if not self.names.issuperset(found):
            self.names.update(found)
            self._recheck_recent()
        return True

    def collected(self, kept: Mapping[int, Raw] | None = None) -> Collected:
        """Return the collected lines, or the lines in `kept` by their positions."""
        raws = self.kept if kept is None else [kept[position] for position in sorted(kept)]
        return Collected(tuple(raws), frozenset(self.hosts), self.mailboxes)

    def _recheck_recent(self) -> None:
        known = 0
        while self.recent and known < len(self.names):
            known = len(self.names)
            others = []
            for found, raws in self.recent:
                if self.names.isdisjoint(found):
                    others.append((found, raws))
                else:
                    self.names.update(found)
                    self.kept += raws
            self.recent.clear()
            self.recent.extend(others)
        self.kept.sort(key=lambda raw: raw.position)

    def _remember(self, source: str, position: int, text: str) -> None:
        """Remember a line without a name: a connection's TLS, or a line from before the message is named."""
        if "TLS connection established" in text or "]: connect from " in text:
            key = _process(source, text)
            self.hosts.add(source or key.strip().partition(" ")[0])
            if "]: connect from " in text:
                self._pending.pop(key, None)
                self._tls_lines.pop(key, None)
                return
            self._tls_lines[key] = text
            self._tls_lines.move_to_end(key)
            while len(self._tls_lines) > MAX_PROCESSES:
                self._tls_lines.popitem(last=False)
        elif "]: NOQUEUE: " in text or _CLIENT.search(text):
            raw = Raw(source, position, text, self._tls(source, text))
            self._pending.setdefault(_process(source, text), deque(maxlen=MAX_PENDING_LINES)).append(raw)

    def _with_context(self, source: str, position: int, text: str) -> list[Raw]:
        """Return a line, after those that its process logged before it could name the message."""
        found: list[Raw] = []
        key = _process(source, text) if self._pending else ""
        if key in self._pending and (queue_id := received_id(text) or attempted_id(text)):
            found = [dataclasses.replace(raw, queue_id=queue_id) for raw in self._pending.pop(key)]
        return [*found, Raw(source, position, text, self._tls(source, text))]

    def _tls(self, source: str, text: str) -> str:
        return self._tls_lines.get(_process(source, text), "")


def names(text: str) -> list[str]:
    """Return the queue ids and Message-IDs in a line."""
    found = []
    start = text.find("]: ") + 3
    start += 9 if text.startswith("warning: ", start) else 0
    if start > 2 and (leading := _LEADING_ID.match(text, start)) and leading[0] != "NOQUEUE":
        found.append(leading[0])
    for mark, name in _MARKED:
        place = text.find(mark)
        if place >= 0 and (named := name.match(text, place + len(mark))):
            found.append(named[1])
    return found


def is_refusal(text: str) -> bool:
    """Whether a line reports that a client was refused before its message had a queue id."""
    return "]: NOQUEUE: " in text and "reject: " in text


def confirmed(raw: Raw) -> Raw:
    """Return a refusal as one that was searched for."""
    return dataclasses.replace(raw, unconfirmed=False)


def received_id(text: str) -> str | None:
    """Return the queue id of a message that was received, according to the line."""
    found = _RECEIVED.search(text)
    return found[1] if found else None


def attempted_id(text: str) -> str | None:
    """Return the queue id of a message for which a client logged a delivery attempt."""
    found = _ATTEMPTED.search(text)
    return found[1] if found else None


def _process(source: str, text: str) -> str:
    """Return the identity of the process that logged a line: source, host, program and process id."""
    return f"{source} {' '.join(text[: text.find(']: ')].rsplit(' ', 2)[-2:])}"


def collect(
    read: Callable[[], Lines], seeds: Iterable[str], refusals: Sequence[Raw] = (), hosts: Iterable[str] = ()
) -> Collected:
    """Return every line of the messages that `seeds` name, and `refusals`.

    `hosts` are known to have their logs here. Refusals that may belong to one of the messages are included
    (`Raw.unconfirmed`). Each call of `read` starts from the beginning.
    """
    known = {seed.strip("<>") for seed in seeds}
    collector = Collector()
    for _ in range(PASSES if known else 0):
        collector = Collector(set(known), hosts=set(hosts))
        for position, (source, text) in enumerate(read()):
            collector.feed(source, position, text)
        if collector.names == known:
            break
        known = collector.names
    kept = {raw.position: raw for raw in (*refusals, *collector.kept)}
    for raw in collector.refusals:
        kept[raw.position] = confirmed(raw) if raw.position in kept else raw
    return collector.collected(kept)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search: names of messages, and refusals without a name; `more` if earlier ones were left out."""

    seeds: tuple[str, ...]
    refusals: tuple[Raw, ...] = ()
    more: bool = False
    name: str = ""  # the query, if it is a name


def search(read: Callable[[], Lines], query: str, limit: int = MESSAGES) -> SearchResult:
    """Find the newest messages with `query` in a line: a Message-ID, a queue id, or any text in any case."""
    if exact := _exact_match(read, query):
        return exact
    wanted = query.lower()
    return _last_matches(read, lambda text: wanted in text.lower(), limit)


def _exact_match(read: Callable[[], Lines], query: str) -> SearchResult | None:
    """Find `query` as a name; None if no line has it as one."""
    name = query.strip().strip("<>")
    for _, text in read():
        if name in text and name in names(text):
            return SearchResult((name,), name=name)
    return None


def latest(read: Callable[[], Lines], limit: int = 30, skip: Callable[[str], bool] = lambda _: False) -> SearchResult:
    """Find the last messages that each host received, without those that have a line for which `skip` is true.

    The line that names a message follows its receipt, so a message counts once it has a Message-ID, or is the newest.
    """
    named: dict[str, deque[str]] = {}
    unnamed: dict[str, deque[str]] = {}
    refusals: deque[Raw] = deque(maxlen=limit)
    for position, (source, text) in enumerate(read()):
        if found := received_id(text):
            unnamed.setdefault(_host(source, text), deque(maxlen=limit)).append(found)
        elif is_refusal(text):
            if not skip(text):
                refusals.append(Raw(source, position, text))
        elif ": message-id=" in text and (leading := names(text)):
            host = _host(source, text)
            if leading[0] in unnamed.get(host, ()):
                unnamed[host].remove(leading[0])
                if not skip(text):
                    named.setdefault(host, deque(maxlen=limit)).append(leading[0])
    hosts = dict.fromkeys((*named, *unnamed))
    last = [[*named.get(host, ()), *unnamed.get(host, ())][-limit:] for host in hosts]
    return SearchResult(tuple(name for each in last for name in each), tuple(refusals))


def _host(source: str, text: str) -> str:
    return _process(source, text).rpartition(" ")[0]


def _last_matches(read: Callable[[], Lines], matches: Callable[[str], bool], limit: int) -> SearchResult:
    seeds: OrderedDict[str, None] = OrderedDict()
    refusals: deque[Raw] = deque(maxlen=limit)
    more = False
    unnamed: set[str] = set()  # processes with a matching line, but no queue id yet
    for position, (source, text) in enumerate(read()):
        if unnamed and (queue_id := received_id(text)) and _process(source, text) in unnamed:
            unnamed.remove(_process(source, text))
            seeds[queue_id] = None
        if not matches(text):
            continue
        if "]: NOQUEUE: " in text and not is_refusal(text):
            unnamed.add(_process(source, text))
            continue
        if is_refusal(text):
            more = more or len(refusals) == limit
            refusals.append(Raw(source, position, text))
        elif found := names(text):
            seeds[found[0]] = None
            seeds.move_to_end(found[0])
            if len(seeds) > limit:
                seeds.popitem(last=False)
                more = True
    return SearchResult(tuple(seeds), tuple(refusals), more)
