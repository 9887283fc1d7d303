"""The engine's API over its Unix socket, against a server with given answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from mailstack.engine.engine import Engine
from mailstack.engine.unix_api import UnixApi
from mailstack.engine.unix_connection import Refused
from mailstack.errors import EngineError
from mailstack.target.target import LocalTarget

pytestmark = pytest.mark.sockets

Serve = Callable[[bytes], UnixApi]


class Server:
    """Gives one answer to each connection, and records the requests."""

    def __init__(self, path: Path) -> None:
        self.path, self.answer = path, b""
        self.asked: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(65536).decode())
                connection.sendall(self.answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # the rest of the question
                    pass

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path / "engine.sock")
    yield found
    found.close()


def _answer(status: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(data), data)


def test_what_fits_is_asked_for_by_labels(server: Server) -> None:
    server.answer = _answer("200 OK", [{"Id": "1"}])
    api = UnixApi(str(server.path))
    assert api.containers(all=True, filters={"label": ["a=b"]}) == [{"Id": "1"}]
    assert unquote(server.asked[0].splitlines()[0]) == 'GET /containers/json?all=1&filters={"label": ["a=b"]} HTTP/1.1'


def test_a_refusal_has_the_engine_s_words(server: Server) -> None:
    server.answer = _answer("409 Conflict", {"message": "container 1 is not running"})
    with pytest.raises(Refused, match="container 1 is not running") as caught:
        UnixApi(str(server.path)).exec_create("1", ["true"])
    assert caught.value.status == 409
    with pytest.raises(EngineError, match="refused: container 1 is not running"):
        Engine(LocalTarget(f"unix://{server.path}")).execute("1", ["true"])


def test_what_a_program_says_at_once_is_not_lost(server: Server) -> None:
    server.answer = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n\x01\0\0\0\0\0\0\x02hi"
    with UnixApi(str(server.path)).exec_start("2", socket=True) as stream:
        assert stream.recv(100) == b"\x01\0\0\0\0\0\0\x02hi"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nnonsense"])
def test_an_answer_that_is_none_is_told_as_an_engine_that_is_not_there(server: Server, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(EngineError, match="no Docker engine answers"):
        Engine(LocalTarget(f"unix://{server.path}")).execute("1", ["true"])


def test_a_container_that_goes_between_two_questions_is_left_out(server: Server) -> None:
    summary = {"Id": "1", "Labels": {"com.docker.compose.service": "postfix"}}
    answers = iter([_answer("200 OK", [summary]), _answer("404 Not Found", {"message": "no such container"})])

    class Going(UnixApi):
        def _ask(self, *words: object) -> object:
            server.answer = next(answers)
            return super()._ask(*words)  # type: ignore[arg-type]

    engine = Engine(LocalTarget(f"unix://{server.path}"))
    engine.__dict__["_quick"] = Going(str(server.path))
    assert engine.services("mailstack-a") == []


def frame(text: str) -> bytes:
    return b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text.encode()


NEVER = "0001-01-01T00:00:00Z"
BEFORE = "2026-11-28T22:41:46.703389664Z"


@pytest.fixture
def printing(tmp_path: Path) -> Iterator[Callable[[bytes], tuple[Engine, list[str]]]]:
    """Yield a function that serves an engine with a container's log; an empty log stays open."""
    servers = []

    def serve(log: bytes, ended: str = NEVER) -> tuple[Engine, list[str]]:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(tmp_path / "printing.sock"))
        listener.listen()
        servers.append(listener)
        asked: list[str] = []

        def answer() -> None:
            state = {"State": {"StartedAt": "2026-11-28T23:00:00Z", "FinishedAt": ended}}
            for text in (_answer("200 OK", state), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + log):
                connection, _ = listener.accept()
                with connection:
                    asked.append(connection.recv(65536).decode())
                    connection.sendall(text)
                    if not log:
                        connection.recv(1)  # until the other side closes

        threading.Thread(target=answer, daemon=True).start()
        return Engine(LocalTarget(f"unix://{tmp_path}/printing.sock")), asked

    yield serve
    for each in servers:
        each.close()


@pytest.mark.parametrize(("ended", "since"), [(NEVER, "since=0.000000 "), (BEFORE, "since=1795905706.703389 ")])
def test_what_a_container_has_printed_since_it_last_ended_is_heard(
    printing: Callable[..., tuple[Engine, list[str]]], ended: str, since: str
) -> None:
    """And not since its start: the engine may be late to note that, and the line have the earlier time."""
    lines = frame("postfix/postlog: starting\n") + frame("master[1]: daemon started -- version 3\n")
    engine, asked = printing(lines, ended)
    assert engine.prints("abc", "daemon started", 60)
    assert since in asked[1]


def test_a_container_that_ends_has_not_said_it(printing: Callable[[bytes], tuple[Engine, list[str]]]) -> None:
    engine, _ = printing(frame("fatal: no such file\n"))
    assert not engine.prints("abc", "daemon started", 60)


def test_a_container_that_prints_nothing_is_not_waited_for_any_longer(
    printing: Callable[[bytes], tuple[Engine, list[str]]],
) -> None:
    engine, _ = printing(b"")
    assert not engine.prints("abc", "daemon started", 0.05)


def test_an_engine_that_takes_connections_and_says_nothing_is_called_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailstack.engine.unix_connection.ANSWER_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with pytest.raises(EngineError, match="accepts connections, but does not answer"):
            Engine(LocalTarget(f"unix://{tmp_path / 's'}")).version()
