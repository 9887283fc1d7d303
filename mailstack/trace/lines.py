"""Parsing of a log line: time, host, program, process, text.

Supports syslog's two formats (RFC 3164, and RFC 5424's time, as rsyslog and journald write them), Dovecot's own log
files, and the output of containers, with or without the engine's times and Compose's names in front.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

_COMPOSE = re.compile(r"(?P<service>[\w.-]+?)(?:-\d+)? +\| ")
_ENGINE = re.compile(r"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)) ")
_SYSLOG = re.compile(r"(?P<stamp>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) ")
_DOVECOT = re.compile(r"(?P<stamp>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) ")
_TAGGED = re.compile(r"(?:(?P<host>[\w.-]+) )?(?P<program>[\w.-]+(?:/[\w./-]+)?)(?:\[(?P<process>\d{1,10})\])?: ")
# A line of Dovecot without syslog begins with the service, and its user in parentheses.
_SERVICE = re.compile(r"(?P<program>[a-z][a-z-]*)(?:\((?P<who>[^)]*)\))?(?:<\d+>)?(?:<[^>]*>)?: ")


@dataclass(frozen=True, slots=True)
class Line:
    """One log line."""

    at: float | None  # seconds of the epoch
    host: str  # the machine or service that logged it; "" if unknown
    program: str  # postfix/submission/smtpd, dovecot, …
    process: int | None
    text: str
    position: int = 0  # line number in the input


def parse(raw: str, source: str = "", position: int = 0, now: float | None = None) -> Line:
    """Parse a raw line; `source` is the host if the line names none. Never raises.

    For a time without a year, the latest year is used with which it is not after `now` (seconds of the epoch).
    """
    start, at, host = 0, None, ""
    if found := _COMPOSE.match(raw):
        host, start = found["service"], found.end()
    if found := _ENGINE.match(raw, start):
        at, start = _iso(found["stamp"]), found.end()
    if found := _SYSLOG.match(raw, start):
        at, start = (_syslog(found["stamp"], now) if at is None else at), found.end()
    elif found := _DOVECOT.match(raw, start):
        at, start = (_iso(found["stamp"]) if at is None else at), found.end()
    program, process = "", None
    if found := _TAGGED.match(raw, start):
        if found["host"] or "/" in found["program"] or found["process"]:
            host = host or source or found["host"] or ""
            program, process = found["program"], int(found["process"]) if found["process"] else None
            start = found.end()
        elif _SERVICE.match(raw, start):
            program = "dovecot"
    elif _SERVICE.match(raw, start):
        program = "dovecot"
    return Line(at, host or source or program, program, process, raw[start:].rstrip("\r\n"), position)


# The range of times that are valid dates in every time zone: the years 1 and 9999 have a first and a last day.
EARLIEST, LATEST = -62135510400.0, 253402128000.0


def _iso(stamp: str) -> float | None:
    leap = stamp[16:19] == ":60"  # a leap second, which datetime does not support
    stamp = f"{stamp[:17]}59{stamp[19:]}" if leap else stamp
    if found := re.fullmatch(r"(.*\.\d{6})\d+(.*)", stamp):  # datetime supports microseconds only
        stamp = found[1] + found[2]
    try:
        at = datetime.fromisoformat(stamp).timestamp() + leap
    except (ValueError, OverflowError, OSError):
        return None
    return at if EARLIEST <= at <= LATEST else None


@lru_cache(maxsize=256)
def _month(name: str) -> int | None:
    names = "JanFebMarAprMayJunJulAugSepOctNovDec"
    place = names.find(name)
    return place // 3 + 1 if place % 3 == 0 else None


def _syslog(stamp: str, now: float | None) -> float | None:
    """Return the time of an RFC 3164 stamp in this machine's time zone, up to a day in the future if clocks differ."""
    now = time.time() if now is None else now
    month = _month(stamp[:3])
    try:
        year = datetime.fromtimestamp(now).year
        hour, minute, second = (int(part) for part in stamp[7:].split(":"))
        leap = second == 60
        if month is None:
            return None
        for candidate in (year + 1, year, year - 1, year - 2, year - 3, year - 4):
            try:
                at = datetime(candidate, month, int(stamp[4:6]), hour, minute, second - leap).timestamp() + leap
            except ValueError:  # 29 February in a year that has none
                continue
            if at <= now + 86400:
                return at
    except (ValueError, OverflowError, OSError):
        pass
    return None
