"""Where a message went: the journeys in a lab's logs and queues, and in log files that a user has at hand."""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
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
_MOST_INPUT = 2 * 1024**3  # bytes of standard input that are kept, to be read more than once
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
    found = []
    for service in lab.services():
        if service.name in queues.SERVICES and service.state == "running":
            for entry in queues.entries(lab.engine, service.container, service.name):
                recipients = tuple((each.address, each.reason) for each in entry.recipients)
                found.append(Waiting(service.name, entry.queue_id, entry.name, recipients, entry.next_try))
    return found


@contextlib.contextmanager
def lab_lines(lab: RunningLab) -> Iterator[Read]:
    """A lab's logs, to be read as often as needed: spooled to files, however long they are."""
    with contextlib.ExitStack() as opened:
        spools = {}
        for service in lab.services():
            spools[service.name] = opened.enter_context(tempfile.TemporaryFile())
            lab.engine.copy_logs(service.container, spools[service.name])

        def read() -> Iterator[tuple[str, str]]:
            for name, spool in spools.items():
                spool.seek(0)
                for line in _lines(spool):
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


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Line by line; a line that does not end is taken in pieces, so that memory stays bounded."""
    rest = b""
    while chunk := file.read(_CHUNK):
        data = rest + chunk
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) > _CHUNK:
            end = len(data)
        # Many lines at once: decoding them one by one takes as long as looking at them.
        if end:
            yield from data[:end].decode(errors="replace").removesuffix("\n").split("\n")
        rest = data[end:]
    if rest:
        yield rest.decode(errors="replace")


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
                remedy="what comes through a pipe is read with `--logs -`, from standard input",
            )
        return cast(IO[bytes], gzip.open(file)) if path.suffix == ".gz" else file
    except (OSError, ValueError) as error:  # ValueError: a zero byte in its name
        reason = error.strerror if isinstance(error, OSError) else None
        raise InputError(f"{path}: cannot be read: {reason or error}") from None


def _spooled(stream: IO[bytes]) -> IO[bytes]:
    """A copy in a file without a name, to be read more than once. Raises InputError when it does not end."""
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
    since = None if query else time.time()
    for position, found in enumerate(lab.engine.follow(containers, since=since, deadline=deadline)):
        if found is None:
            yield None
            return
        awaited = not query and not collector.names
        if awaited and (begins := collect.begins(found[1])):
            collector.names.add(begins)
        if collector.feed(found[0], position, found[1]):
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
