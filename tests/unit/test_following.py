"""Logs are followed over restarts; several become one stream of lines, until they end or time is up."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest

from mailstack.errors import EngineError
from mailstack.following import Log, merged


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
    """Some pieces, and then silence until it is closed; or, where it is said to end, its end."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self._pieces = pieces
        self._over = threading.Event()
        if ends:
            self._over.set()

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        assert self._over.wait(5)

    def close(self) -> None:
        self._over.set()


class Container:
    """A container that prints what is given, run by run, and is then removed; `starts` are news of its starts."""

    def __init__(self, *logs: Stream, events: Stream | None = None, runs: bool = True) -> None:
        self._logs = iter(logs)
        self._events = events or Stream()
        self._runs = runs

    def open_log(self, container: str, since: float | None) -> Stream:
        try:
            return next(self._logs)
        except StopIteration:
            raise EngineError("no such container") from None

    def open_events(self, container: str) -> Stream:
        return self._events

    def runs(self, container: str) -> bool:
        return self._runs


def at(second: int, text: str) -> bytes:
    return f"2026-11-23T21:29:{second:02}.692174350Z {text}\n".encode()


def test_a_log_goes_on_after_a_restart_and_repeats_nothing() -> None:
    first, second = [at(1, "a"), at(1, "b")], [at(1, "a"), at(1, "b"), at(2, "c"), at(2, "d")]
    for container in (
        Container(Stream(*first), Stream(*second)),
        Container(Stream(*first), Stream(*second), events=Stream(b"start", ends=False), runs=False),
    ):
        assert list(Log(container, "id", None)) == second


def test_a_log_ends_when_its_container_has_been_removed() -> None:
    container = Container(Stream(at(1, "a")), events=Stream(b"destroy", ends=False), runs=False)
    assert list(Log(container, "id", None)) == [at(1, "a")]


@pytest.mark.parametrize(
    "container",
    [
        Container(Stream(at(1, "a"), ends=False)),
        Container(Stream(at(1, "a")), Stream(at(1, "a"), ends=False), events=Stream(ends=False), runs=False),
    ],
    ids=["while it is read", "while its container is stopped"],
)
def test_a_log_that_is_closed_ends(container: Container) -> None:
    log = Log(container, "id", None)
    heard = merged({"a": log}, lambda: 5)
    assert next(heard)
    log.close()
    assert list(heard) == []
