"""Waiting for news in a mailbox: how often the server is asked, and when IDLE replaces that."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator

import pytest

from mailstack.model import Deadline
from mailstack.protocol import idle


def pauses(seconds: float) -> Iterator[float]:
    """Yield the pauses between requests of a client that waits for so long."""
    waited = 0.0
    while waited < seconds and (pause := idle.pause(waited)) is not None:
        yield pause
        waited += pause


def test_who_waits_asks_soon_and_then_after_an_eighth_of_the_time() -> None:
    waited = list(itertools.accumulate(pauses(3.0)))
    assert waited[0] == pytest.approx(0.001)
    for before, after in itertools.pairwise(waited):
        assert after - before <= max(0.001001, before / 8 + 1e-9)
    assert len(waited) < 75


def test_idle_takes_over_when_it_is_the_sooner_one() -> None:
    assert idle.pause(3.9) == pytest.approx(3.9 / 8)
    assert idle.pause(4.0) is None


class Client:
    """A server that reports a mail in its answer to the n-th NOOP."""

    def __init__(self, after: int) -> None:
        self.sock, self._other = socket.socketpair()
        self.untagged_responses: dict[str, list[bytes]] = {}
        self.asked = 0
        self._after = after

    def noop(self) -> None:
        self.asked += 1
        if self.asked == self._after:
            self.untagged_responses["EXISTS"] = [b"1"]

    def response(self, code: str) -> tuple[str, list[bytes] | None]:
        return code, self.untagged_responses.pop(code, None)

    def close(self) -> None:
        self.sock.close()
        self._other.close()


class Box:
    def __init__(self, after: int) -> None:
        self.client = Client(after)


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box(after=3)
    yield made
    made.client.close()


def test_a_wait_ends_with_the_first_answer_that_tells_of_a_mail(box: Box) -> None:
    deadline = Deadline.after(5.0)
    idle.wait(box, deadline)  # type: ignore[arg-type]
    assert box.client.asked == 3 and deadline.remaining() > 4.0


def test_what_was_told_already_is_not_waited_for_and_is_no_news_once_it_was_looked_at(box: Box) -> None:
    box.client.untagged_responses["EXISTS"] = [b"7"]
    idle.wait(box, Deadline.after(5.0))  # type: ignore[arg-type]
    idle.refresh(box)  # type: ignore[arg-type]
    assert box.client.asked == 0
    idle.refresh(box)  # type: ignore[arg-type]
    assert box.client.asked == 1 and not box.client.untagged_responses


def test_a_wait_in_vain_ends_with_its_deadline() -> None:
    box = Box(after=0)
    idle.wait(box, Deadline.after(0.02))  # type: ignore[arg-type]
    assert 1 <= box.client.asked <= 20
    box.client.close()
