"""Journeys of messages, from a lab's logs and queues, and from a user's log files."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import itertools
import os
import stat
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from mailstack.actions import queues
from mailstack.errors import InputError
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from mailstack.roles import Role
from mailstack.trace import assemble, collect, crashes, own, rotation
from mailstack.trace.journey import Journey
from mailstack.trace.outcomes import QueuedMail

_CHUNK = 65536  # bytes; no server logs a longer line
_MOST_INPUT = 2 * 1024**3  # bytes of standard input that are stored, to be read more than once
# Lines kept for a second look when a followed message gets another queue id: the next MTA may log that it has the
# message before the previous one logs the new queue id.
RECENT = 2000

# The engine's log file is at most so many times as large as the log with times: an empty line has 71 bytes in the file,
# and 31 with its time.
_MOST_AROUND = 3

Read = Callable[[], collect.Lines]


@dataclass(frozen=True, slots=True)
class Traced:
    """The journeys found, oldest first; `more` if only the newest of them are included."""

    journeys: tuple[Journey, ...]
    more: bool = False
    rotated: tuple[rotation.Rotated, ...] = ()  # logs whose beginning was removed


@dataclass(frozen=True, slots=True)
class LabLines:
    """A lab's logs without its secrets, each service's in a file of its own. Can be read repeatedly."""

    spools: Mapping[str, IO[bytes]]
    rotated: tuple[rotation.Rotated, ...]
    clean: Callable[[str], str]  # an outside relay may have repeated its credentials

    def __call__(self) -> Iterator[tuple[str, str]]:
        for name, spool in self.spools.items():
            spool.seek(0)
            for line in _lines(spool, self.clean):
                yield name, line


def of_lab(lab: RunningLab, query: str | None = None) -> list[Journey]:
    """Return the journeys that match a Message-ID, a queue id or a text, or the latest; oldest first."""
    return list(search_lab(lab, query).journeys)


def search_lab(lab: RunningLab, query: str | None = None, *, last: bool = False) -> Traced:
    """Return the same, with the logs whose beginning was removed; with `last`, only the user's last mail."""
    with lab_lines(lab) as read:
        found = last_mail(read, queued(lab)) if last else traced(read, query, queued(lab))
        return dataclasses.replace(found, rotated=read.rotated)


def last_mail(read: Read, waiting: Sequence[QueuedMail] | None = None) -> Traced:
    """Return the user's last mail: no notice, and none of a check, a proof or a load, as long as there is another."""
    matches = collect.latest(read, skip=own.is_provoked)
    # With the mails of a check, its relays' refusals are known as theirs.
    seeds = dict.fromkeys((*matches.seeds, *collect.latest(read, collect.MESSAGES).seeds))
    journeys = _assembled(read, dataclasses.replace(matches, seeds=tuple(seeds)), waiting)
    found = own.latest(journeys)
    return Traced((found,) if found else ())


def traced(read: Read, query: str | None, waiting: Sequence[QueuedMail] | None = None) -> Traced:
    """Return the journeys that match `query`, or the latest; `waiting` is the contents of the queues, if known."""
    matches = collect.latest(read) if query is None else collect.search(read, query)
    journeys = _assembled(read, matches, waiting)
    return Traced(tuple(each for each in journeys if not matches.name or each.is_named(matches.name)), matches.more)


def of_ids(read: Read, queue_ids: Iterable[str], waiting: Sequence[QueuedMail]) -> list[Journey]:
    """Return the journeys of the messages with some queue ids."""
    return _assembled(read, collect.SearchResult(tuple(queue_ids)), waiting)


def _assembled(read: Read, matches: collect.SearchResult, waiting: Sequence[QueuedMail] | None = None) -> list[Journey]:
    # Includes a host whose log has lost the line that would identify it.
    hosts = read.spools if isinstance(read, LabLines) else ()
    collected = collect.collect(read, matches.seeds, matches.refusals, hosts)
    now = time.time()
    journeys = assemble.assemble(collected, waiting, now)
    if not any(map(crashes.is_concerned, journeys)):
        return journeys
    found = crashes.find(read(), now)
    return [crashes.assigned(journey, found) for journey in journeys]


def queued(lab: RunningLab) -> list[QueuedMail]:
    """Return the entries in the queues of the lab's MTAs that run."""
    waiting, clean = [], lab.blotter().clean
    for service in lab.by_role(Role.MTA):
        if service.state == "running":
            waiting += as_queued(queues.entries(lab.engine, service.container, service.name), clean)
    return waiting


def as_queued(entries: Iterable[queues.Entry], clean: Callable[[str], str]) -> list[QueuedMail]:
    """Return queue entries as `trace` takes them; `clean` removes secrets."""
    found = []
    for entry in entries:
        recipients = tuple((clean(each.address), clean(each.reason)) for each in entry.recipients)
        found.append(QueuedMail(entry.service, entry.queue_id, entry.name, recipients, entry.next_try))
    return found


@contextlib.contextmanager
def lab_lines(lab: RunningLab, since: float | None = None) -> Iterator[LabLines]:
    """Copy a lab's logs of any length, or their lines since a moment, to unnamed files for as long as `with` lasts."""
    with contextlib.ExitStack() as opened:
        spools, rotated = {}, []
        for service in lab.services():
            spool = spools[service.name] = opened.enter_context(tempfile.TemporaryFile())
            lab.engine.copy_logs(service.container, spool, since)
            rotated.append(_rotated(lab, service.name, service.container, spool))
        yield LabLines(spools, tuple(filter(None, rotated)), lab.blotter().clean)


def _rotated(lab: RunningLab, service: str, container: str, spool: IO[bytes]) -> rotation.Rotated | None:
    """Return how a log has lost its beginning, or None; its bytes are counted only if it is large enough for that."""
    limits = rotation.limits(*lab.engine.log_options(container))
    if limits is None or spool.tell() * _MOST_AROUND < (limits.files - 1) * limits.size:
        return None
    spool.seek(0)
    size = rotation.stored_size(iter(lambda: spool.read(_CHUNK), b""))
    spool.seek(0)
    first = list(itertools.islice(_lines(spool), 100))
    return rotation.find_rotation(service, limits, size, first)


@contextlib.contextmanager
def file_lines(paths: Sequence[Path]) -> Iterator[Read]:
    """Open log files for repeated reading, also compressed ones (.gz); `-` is standard input.

    Raises InputError if one cannot be read.
    """
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(_opened(path)) for path in paths]

        def read() -> Iterator[tuple[str, str]]:
            for path, file in zip(paths, files, strict=True):
                try:
                    file.seek(0)
                    for line in _lines(file):
                        yield "", line
                except (OSError, EOFError, zlib.error) as error:
                    raise InputError(f"{path}: cannot be read: {error}") from None

        yield read


def _lines(file: IO[bytes], clean: Callable[[str], str] = str) -> Iterator[str]:
    """Yield the lines; an endless line is yielded in pieces, so that memory stays bounded."""
    rest = b""
    while chunk := file.read(_CHUNK):
        data = rest + chunk
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) > _CHUNK:
            end = len(data)
        # Many lines at once: decoding each line separately takes as long as searching it.
        if end:
            yield from clean(data[:end].decode(errors="replace")).removesuffix("\n").split("\n")
        rest = data[end:]
    if rest:
        yield clean(rest.decode(errors="replace"))


def _opened(path: Path) -> IO[bytes]:
    try:
        if str(path) == "-":
            return _spooled(sys.stdin.buffer)
        # Opening a FIFO would block until a writer appears, and reading a device may never end.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise InputError(
                f"{path}: cannot be read: it should be a file",
                remedy="use `--logs -` to read from a pipe",
            )
        return cast(IO[bytes], gzip.open(file)) if path.suffix == ".gz" else file
    except (OSError, ValueError) as error:  # ValueError: a zero byte in its name
        reason = error.strerror if isinstance(error, OSError) else None
        raise InputError(f"{path}: cannot be read: {reason or error}") from None


def _spooled(stream: IO[bytes]) -> IO[bytes]:
    """Return a copy in an unnamed file, to be read more than once. Raises InputError if it is too large."""
    with contextlib.suppress(io.UnsupportedOperation):  # not a stream of the operating system
        status = os.fstat(stream.fileno())
        if stat.S_ISCHR(status.st_mode) and not (stream.isatty() or os.path.samestat(status, Path(os.devnull).stat())):
            raise InputError("-: cannot be read: standard input is a device", remedy="give it a file, or a pipe")
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - whoever asked for it closes it
    while chunk := stream.read(_CHUNK):
        spool.write(chunk)
        if spool.tell() > _MOST_INPUT:
            spool.close()
            raise InputError(
                f"-: there are more than {_MOST_INPUT // 1024**2:,} MiB on standard input",
                remedy="give the file itself: `--logs FILE`",
            )
    return spool


def follow(
    lab: RunningLab, query: str | None, deadline: Deadline, *, since: float | None = None
) -> Iterator[Journey | None]:
    """Yield the journey of a message each time that a line adds to it, until it is settled.

    Without `query`, this is the next message that an MTA receives. `since` is the earliest time of its receipt, in
    seconds of the epoch. None means that the deadline has passed.
    """
    if query and since is None:
        with lab_lines(lab) as read:
            known = traced(read, query).journeys
        if known:
            yield known[-1]
            if known[-1].settled:
                return
    containers = {service.name: service.container for service in lab.services()}
    collector = collect.Collector({query.strip("<>")} if query else set(), recent=deque(maxlen=RECENT))
    collector.hosts.update(containers)  # a message passed on to one of these is still followed
    since_time, clean = since if query else time.time(), lab.blotter().clean
    for position, found in enumerate(lab.engine.follow(containers, since=since_time, deadline=deadline)):
        if found is None:
            yield None
            return
        awaited = not query and not collector.names
        if awaited and (queue_id := collect.received_id(found[1])):
            collector.names.add(queue_id)
        if collector.feed(found[0], position, clean(found[1])):
            collected = collector.collected()
        elif awaited and collector.refusals:  # refused before it had a queue id: the journey ends here
            collected = collect.Collected((collect.confirmed(collector.refusals[0]),))
        else:
            continue
        journeys = assemble.assemble(collected, None, time.time())
        if not journeys:
            continue
        journey = journeys[-1]
        if journey.settled:
            # Lines of another hop may have been late; its log has them now.
            journey = _reread(lab, journey, since)
        yield journey
        if journey.settled:
            return


def _reread(lab: RunningLab, journey: Journey, since: float | None) -> Journey:
    """Return the journey from the current logs since a moment."""
    name = journey.message_id or next((hop.queue_id for hop in journey.hops), "")
    if not name:
        return journey
    with lab_lines(lab, since) as read:
        journeys = traced(read, name).journeys
    # Lines rotated away in the meantime are only in the journey that was followed.
    return journeys[-1] if journeys and journeys[-1].settled else journey
