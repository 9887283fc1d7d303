"""Where a message went: the journeys in a lab's logs and queues, and in log files that a user has at hand."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from mailstack import queues
from mailstack.errors import InputError
from mailstack.model import Deadline
from mailstack.running import RunningLab
from mailstack.trace import assemble, collect
from mailstack.trace.journey import Journey
from mailstack.trace.outcomes import Waiting

_CHUNK = 65536  # bytes; no server's line is longer
# Lines that are looked at again when a message that is followed gets another name: the next station may log that it
# has the message before the last one logs how it is called there.
RECENT = 2000

Read = Callable[[], collect.Lines]


@dataclass(frozen=True, slots=True)
class Traced:
    """What was found: journeys, oldest first; `more` that only the newest are here."""

    journeys: tuple[Journey, ...]
    more: bool = False


def of_lab(lab: RunningLab, query: str | None = None) -> list[Journey]:
    """The journeys that a Message-ID, a queue id or a text leads to, or the latest; oldest first."""
    with lab_lines(lab) as read:
        return list(traced(read, query, queued(lab)).journeys)


def traced(read: Read, query: str | None, waiting: Sequence[Waiting] | None = None) -> Traced:
    """The journeys that `query` leads to, or without it the latest; `waiting` is what the queues hold, if known."""
    found = collect.latest(read) if query is None else collect.search(read, query)
    collected = collect.collect(read, found.seeds, found.refusals)
    journeys = assemble.assemble(collected, waiting, time.time())
    return Traced(tuple(each for each in journeys if not found.name or each.goes_by(found.name)), found.more)


def queued(lab: RunningLab) -> list[Waiting]:
    """What waits in the queues of the lab's MTAs, where they run."""
    found, clean = [], lab.blotter().clean
    for service in lab.services():
        if service.name in queues.SERVICES and service.state == "running":
            for entry in queues.entries(lab.engine, service.container, service.name):
                recipients = tuple((clean(each.address), clean(each.reason)) for each in entry.recipients)
                found.append(Waiting(service.name, entry.queue_id, entry.name, recipients, entry.next_try))
    return found


@contextlib.contextmanager
def lab_lines(lab: RunningLab) -> Iterator[Read]:
    """A lab's logs, to be read as often as needed: spooled to files, however long they are."""
    with contextlib.ExitStack() as opened:
        clean = lab.blotter().clean  # a relay outside may have repeated what it was told
        spools = {}
        for service in lab.services():
            spools[service.name] = opened.enter_context(tempfile.TemporaryFile())
            lab.engine.copy_logs(service.container, spools[service.name])

        def read() -> Iterator[tuple[str, str]]:
            for name, spool in spools.items():
                spool.seek(0)
                for line in _lines(spool, clean):
                    yield name, line

        yield read


@contextlib.contextmanager
def file_lines(paths: Sequence[Path]) -> Iterator[Read]:
    """Log files, also compressed ones (.gz); `-` is standard input. Raises InputError when one cannot be read."""
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
    """Line by line; a line that does not end is taken in pieces, so that memory stays bounded."""
    rest = b""
    while chunk := file.read(_CHUNK):
        data = rest + chunk
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) > _CHUNK:
            end = len(data)
        # Many lines at once: decoding them one by one takes as long as looking at them.
        if end:
            yield from clean(data[:end].decode(errors="replace")).removesuffix("\n").split("\n")
        rest = data[end:]
    if rest:
        yield clean(rest.decode(errors="replace"))


def _opened(path: Path) -> IO[bytes]:
    try:
        if str(path) == "-":
            return _spooled(sys.stdin.buffer)
        return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _spooled(stream: IO[bytes]) -> IO[bytes]:
    """A copy in a file without a name, to be read more than once."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - whoever asked for it closes it
    shutil.copyfileobj(stream, spool)
    return spool


def follow(lab: RunningLab, query: str | None, deadline: Deadline) -> Iterator[Journey | None]:
    """The journey of a message as it grows, each time that a line adds to it; ends when it is settled.

    Without `query`, it is the next message that comes in. None says that the deadline has passed.
    """
    if query:
        with lab_lines(lab) as read:
            known = traced(read, query).journeys
        if known:
            yield known[-1]
            if known[-1].settled:
                return
    containers = {service.name: service.container for service in lab.services()}
    collector = collect.Collector({query.strip("<>")} if query else set(), recent=deque(maxlen=RECENT))
    collector.hosts.update(containers)  # a mail that is passed on to one of these is not out of sight yet
    since, clean = None if query else time.time(), lab.blotter().clean
    for position, found in enumerate(lab.engine.follow(containers, since=since, deadline=deadline)):
        if found is None:
            yield None
            return
        awaited = not query and not collector.names
        if awaited and (begins := collect.begins(found[1])):
            collector.names.add(begins)
        if collector.feed(found[0], position, clean(found[1])):
            collected = collector.collected()
        elif awaited and collector.refusals:  # refused before it had a name: that was its journey
            collected = collect.Collected((collect.as_asked(collector.refusals[0]),))
        else:
            continue
        journeys = assemble.assemble(collected, None, time.time())
        if not journeys:
            continue
        journey = journeys[-1]
        if journey.settled:
            # Another station's lines may still be under way: by now they are in its log.
            journey = _again(lab, journey)
        yield journey
        if journey.settled:
            return


def _again(lab: RunningLab, journey: Journey) -> Journey:
    """The journey by the whole logs, as they are now."""
    name = journey.message_id or next((hop.queue_id for hop in journey.hops), "")
    if not name:
        return journey
    with lab_lines(lab) as read:
        found = traced(read, name).journeys
    return found[-1] if found else journey
