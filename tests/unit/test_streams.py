"""Several logs become one stream of lines, until they end or time is up."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

from mailstack.streams import merged


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
