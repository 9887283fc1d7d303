"""Logs are followed across restarts. Several become one stream of lines, until they end or the deadline passes."""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime
from typing import cast

import pytest

from mailstack.engine import following
from mailstack.engine.following import Log, merged
from mailstack.errors import EngineError, HostError


def forever() -> float:
    return math.inf


def test_lines_carry_their_source_s_name_and_keep_its_order() -> None:
    logs = {"postfix": [b"one\n", b"two\n"], "sender": [b"eins\n", b"zwei\n"]}
    heard = list(merged(logs, forever))
    for name, lines in (("postfix", ["one", "two"]), ("sender", ["eins", "zwei"])):
        assert [each[1] for each in heard if each and each[0] == name] == lines
    assert len(heard) == 4


def test_a_line_in_pieces_is_one_and_a_piece_of_several_is_several() -> None:
    assert list(merged({"a": [b"o", b"ne\ntw", b"o\nthree"]}, forever)) == [("a", "one"), ("a", "two"), ("a", "three")]


def test_bytes_that_are_no_text_are_no_obstacle() -> None:
    assert list(merged({"a": [b"\xff\xfe\n"]}, forever)) == [("a", "\N{REPLACEMENT CHARACTER}" * 2)]


def test_no_log_ends_at_once() -> None:
    assert list(merged({}, forever)) == []


def test_when_no_time_is_left_none_is_the_last_to_come() -> None:
    more = threading.Event()

    def silent() -> Iterator[bytes]:
        yield b"heard\n"
        more.wait()

    left = iter([math.inf, 0.001, 0.001])
    assert list(merged({"a": silent()}, lambda: next(left))) == [("a", "heard"), None]
    more.set()


def test_a_log_that_never_pauses_is_no_reason_to_go_on() -> None:
    left = iter([1.0, 1.0, 0.0])
    assert list(merged({"a": [b"line\n"] * 100}, lambda: next(left))) == [("a", "line"), ("a", "line"), None]


def test_the_others_go_on_when_one_log_ends_or_breaks() -> None:
    ended = threading.Event()

    def breaks() -> Iterator[bytes]:
        yield b"last words"
        ended.set()
        raise OSError("the connection was closed")

    def lasts() -> Iterator[bytes]:
        ended.wait()
        yield b"still here\n"

    heard = list(merged({"a": breaks(), "b": lasts()}, forever))
    assert heard.index(("a", "last words")) < heard.index(("b", "still here"))


# ── one log ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Stream:
    """A stream with some pieces; then it blocks until it is closed, or ends."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self.pieces = pieces
        self._over = threading.Event()
        if ends:
            self._over.set()

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        assert self._over.wait(5)

    def close(self) -> None:
        self._over.set()


class Container:
    """A container whose log has `past`. Following it returns `logs`, one after the other; then the container is
    removed.
    """

    def __init__(
        self,
        *logs: Stream,
        past: Sequence[bytes] | None = None,
        events: Stream | None = None,
        runs: bool = True,
        failures: int = 0,
    ) -> None:
        self._logs = iter(logs)
        self._past = list(past if past is not None else dict.fromkeys(each for log in logs for each in log.pieces))
        self._events = events or Stream()
        self._runs, self._failures = runs, failures
        self.asked: list[float | None] = []

    def open_log(self, container: str) -> Stream:
        try:
            return next(self._logs)
        except StopIteration:
            raise EngineError("no such container") from None

    def read_log(self, container: str, since: float | None) -> list[bytes]:
        self.asked.append(since)
        if self._failures:
            self._failures -= 1
            return [*self._past[:1], FAILED]
        return list(self._past)

    def last_line(self, container: str) -> bytes:
        return self._past[-1] if self._past else b""

    def open_events(self, container: str) -> Stream:
        return self._events

    def is_running(self, container: str) -> bool:
        return self._runs


FAILED = b"Error grabbing logs: no such file or directory\n"


def at(second: int, text: str) -> bytes:
    return f"2026-11-23T21:29:{second:02}.692174350Z {text}\n".encode()


A, B, C, D = at(1, "a"), at(2, "b"), at(3, "c"), at(4, "d")


def test_a_log_goes_on_after_a_restart_and_repeats_nothing() -> None:
    for container in (
        Container(Stream(B), Stream(B, C, D), past=[A, B, C, D]),
        Container(Stream(A, B), Stream(B, C, D), events=Stream(b"start", ends=False), runs=False),
    ):
        assert list(Log(container, "id", None)) == [A, B, C, D]


def test_two_lines_of_one_moment_are_two() -> None:
    assert list(Log(Container(Stream(at(1, "a"), at(1, "b"))), "id", None)) == [at(1, "a"), at(1, "b")]


def test_what_the_engine_repeats_when_a_log_rotates_comes_once() -> None:
    assert list(Log(Container(Stream(A, B, B, C, B, C, C, D), past=[A]), "id", None)) == [A, B, C, D]


def test_the_parts_of_one_long_line_have_one_time_and_may_be_the_same() -> None:
    part = at(2, "x" * 100).rstrip(b"\n")
    assert list(Log(Container(Stream(A, part, part, at(2, "end")), past=[A]), "id", None)) == [
        A,
        part,
        part,
        at(2, "end"),
    ]


def test_what_following_leaves_out_at_its_end_is_read() -> None:
    container = Container(Stream(A), past=[A, B, C])
    assert list(Log(container, "id", None)) == [A, B, C]


def test_a_stream_that_falls_silent_although_there_are_newer_lines_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "CHECK_SECONDS", 0.01)
    container = Container(Stream(A, ends=False), Stream(D), past=[A])
    heard = []
    for piece in Log(container, "id", None):
        heard.append(piece)
        container._past[:] = [A, B, C, D]
    assert heard == [A, B, C, D]


def test_a_stream_that_says_that_it_has_failed_is_opened_again_and_not_taken_for_a_line() -> None:
    assert list(Log(Container(Stream(A, FAILED), Stream(B, C), past=[A, B]), "id", None)) == [A, B, C]


def test_a_log_that_rotates_while_it_is_read_is_read_again() -> None:
    assert list(Log(Container(Stream(C, D), past=[A, B, C], failures=2), "id", None)) == [A, B, C, D]


def test_only_what_was_printed_since_a_moment_comes() -> None:
    since = datetime(2026, 11, 23, 21, 29, 2, 800_000, UTC).timestamp()
    container = Container(Stream(B, C), past=[C])
    assert list(Log(container, "id", since)) == [C]
    assert container.asked[0] == pytest.approx(since)


def test_a_log_ends_when_its_container_has_been_removed() -> None:
    container = Container(Stream(A), events=Stream(b"destroy", ends=False), runs=False)
    assert list(Log(container, "id", None)) == [A]


@pytest.mark.parametrize(
    "container",
    [
        Container(Stream(A, ends=False)),
        Container(Stream(A), Stream(A, ends=False), events=Stream(ends=False), runs=False),
    ],
    ids=["while it is read", "while its container is stopped"],
)
def test_a_log_that_is_closed_ends(container: Container) -> None:
    log = Log(container, "id", None)
    heard = merged({"a": log}, lambda: 5)
    assert next(heard)
    log.close()
    assert list(heard) == []


def test_a_log_that_has_ended_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    assert list(Log(Container(Stream(A)), "id", None)) == [A]
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_a_reader_who_is_slow_has_few_lines_held_for_it_and_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_BUFFERED", 10)
    given, ended = [], threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                given.append(1)
                yield b"line\n"
        finally:
            ended.set()

    heard = merged({"a": endless()}, forever)
    assert next(heard) == ("a", "line")
    assert len(given) <= 13
    cast(Generator[object], heard).close()
    assert ended.wait(5)
    assert len(given) <= 30


def test_a_host_that_goes_while_its_logs_are_followed_is_told_and_not_waited_for() -> None:
    def cut() -> Iterator[bytes]:
        yield b"2026-01-01T00:00:00.000000000Z a line\n"
        raise HostError("far: the connection was lost")

    lines = following.merged({"postfix": cut()}, lambda: 60.0)
    assert next(lines) == ("postfix", "2026-01-01T00:00:00.000000000Z a line")
    with pytest.raises(HostError, match="the connection was lost"):
        next(lines)
