"""The protocol between a command and the process that keeps a connection, including cut connections."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack import errors
from mailstack.errors import CommandFailed, DeadlinePassed, EngineError, HostError, MailstackError
from mailstack.model import Command, Deadline, Json, Result
from mailstack.ssh import address, connection, daemon_control, tunnel, wire
from mailstack.ssh.remote import Remote

HOST = address.parse("box")
ABOUT = {"place": "/dev/shm/x", "socket": "/s", "way": "socket", "user": "u", "uid": 1, "clock": 0, "ports": []}


def reading(data: bytes) -> io.BufferedRWPair:
    return io.BufferedRWPair(io.BytesIO(data), io.BytesIO())


@given(some.binary())
def test_whatever_comes_is_an_object_or_an_end_or_broken(data: bytes) -> None:
    try:
        found = wire.receive(reading(data))
    except wire.ProtocolError:
        return
    assert found is None or isinstance(found, dict)


@pytest.mark.parametrize("line", [b"[" * 100_000 + b"\n", b"7\n", b"null\n", b'"x"\n', b"{\n", b"\xff\n", b"\n"])
def test_a_line_that_is_no_object_is_broken(line: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.receive(reading(line))


@pytest.mark.parametrize("cut", range(len(b'{"code": 0}')))
def test_a_line_that_was_cut_was_not_said(cut: int) -> None:
    assert wire.receive(reading(b'{"code": 0}'[:cut])) is None


@pytest.mark.parametrize(
    ("name", "kind"), [("code", str), ("flag", int), ("none", int), ("absent", str), ("text", list), ("list", dict)]
)
def test_a_value_of_another_type_is_broken(name: str, kind: type) -> None:
    document: Json = {"code": 1, "flag": True, "none": None, "text": "x", "list": [1]}
    with pytest.raises(wire.ProtocolError, match=name):
        wire.value(document, name, kind)


@pytest.mark.parametrize("kind", [HostError, DeadlinePassed, EngineError, CommandFailed, errors.InputError])
def test_an_error_crosses_whole(kind: type[MailstackError]) -> None:
    error = kind("it broke", remedy="mend it", details="line 1\nline 2")
    error.add_note("the disk is full")
    error.message += ": badly"
    found = wire.error_of(json.loads(json.dumps(wire.error_document(error))))
    assert (type(found), found.whole()) == (kind, error.whole())
    assert found.whole() == "it broke: badly\n  line 1\n  line 2\n  the disk is full\n  → mend it"


def test_a_foreign_error_crosses_with_its_name() -> None:
    found = wire.error_of(wire.error_document(KeyError("x")))
    assert (type(found), found.message) == (HostError, "the daemon that keeps the connection failed: KeyError: 'x'")


# ── the command's side ───────────────────────────────────────────────────────────────────────────────────────────

Serve = Callable[[bytes | None], connection.Connection]


@pytest.fixture
def over(tmp_path: Path) -> Iterator[Serve]:
    """Yield a function that connects to a host whose process answers `about`, and then sends these bytes, if any."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / address.CONTROL))
    listener.listen()
    end = threading.Event()

    def serve(answer: bytes | None) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                about = b'"about"' in connection.recv(1 << 16)
                if about:
                    connection.sendall(json.dumps(ABOUT).encode() + b"\n")
                elif answer is None:
                    end.wait()
                else:
                    connection.sendall(answer)

    def begin(answer: bytes | None) -> connection.Connection:
        threading.Thread(target=serve, args=(answer,), daemon=True).start()
        return connection.Connection(HOST, tmp_path, socket.socket(socket.AF_UNIX))

    yield begin
    end.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize(
    "answer", [b"", b'{"code": 0, "std', b'{"code": 0, "stdout": "", "stderr": ""}', b'{"line": "x"}\n']
)
@pytest.mark.sockets
def test_a_process_that_is_killed_in_the_middle_of_its_answer_is_a_connection_that_was_cut(
    over: Serve, answer: bytes
) -> None:
    with pytest.raises(HostError, match="box: the connection was lost"):
        over(answer).run(Command(("true",)))


@pytest.mark.parametrize(
    "answer",
    [
        b"\n",
        b"{}\n",
        b"[1]\n",
        b"\xff\xfe\n",
        b'{"code": "0", "stdout": "", "stderr": ""}\n',
        b'{"code": 0, "stdout": null, "stderr": ""}\n',
        b'{"line": 7}\n',
        b'{"error": 7}\n',
        b'{"error": "x", "kind": "SystemExit"}\n',
        b'{"error": "x", "kind": "HostError", "remedy": "", "details": "", "notes": 1}\n',
    ],
)
@pytest.mark.sockets
def test_an_answer_that_is_none_is_told_as_that(over: Serve, answer: bytes) -> None:
    with pytest.raises(HostError, match=r"box: .* an unreadable answer"):
        over(answer).run(Command(("true",)), on_line=print)


@pytest.mark.sockets
def test_an_error_of_the_other_side_is_raised_as_what_it_is(over: Serve) -> None:
    late = DeadlinePassed("too late", remedy="wait", details="why")
    with pytest.raises(DeadlinePassed) as caught:
        over(json.dumps(wire.error_document(late)).encode() + b"\n").run(Command(("true",)))
    assert caught.value.whole() == late.whole()


@pytest.mark.sockets
def test_a_process_that_does_not_answer_is_not_waited_for_beyond_the_deadline(
    over: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ENDING_SECONDS", 0.1)
    monkeypatch.setattr(connection, "SECONDS", 0.1)
    begun, silent = time.monotonic(), over(None)
    with pytest.raises(DeadlinePassed):
        silent.run(Command(("true",)), deadline=Deadline.after(0.1))
    with pytest.raises(HostError, match="box: the daemon that keeps the connection does not answer"):
        silent.forward([1])
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("error", [BrokenPipeError(32, "mine"), TimeoutError("mine"), wire.ProtocolError("mine")])
@pytest.mark.sockets
def test_what_a_line_callback_raises_is_not_taken_for_the_connection_s(over: Serve, error: Exception) -> None:
    def refuse(line: str) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        over(b'{"line": "x"}\n').run(Command(("true",)), on_line=refuse)
    assert caught.value is error


# ── the other side ───────────────────────────────────────────────────────────────────────────────────────────────


class Still(tunnel.Tunnel):
    """A connection without leases; its commands are recorded."""

    def __init__(self) -> None:
        super().__init__(Remote(HOST, {}), Path("/nowhere"))
        self.ran: list[Command] = []
        self.remote.session = lambda: None  # type: ignore[method-assign]
        self.remote.end = lambda channel, seconds=0.0: None  # type: ignore[method-assign]
        self.remote.run = self._run  # type: ignore[method-assign]

    def _run(self, command: Command, **_: Any) -> Result:
        self.ran.append(command)
        return Result(0, "", "")

    def client_joined(self) -> None:
        """Do nothing."""

    def client_left(self) -> None:
        """Do nothing."""


def ask(still: Still, question: bytes) -> bytes:
    """Return the answer to some bytes, after which the client sends no more."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(question)
        ours.shutdown(socket.SHUT_WR)
        with theirs:
            daemon_control.Control(still)(theirs)
        with ours.makefile("rb") as stream:
            return stream.read()


RUN = {"do": "run", "argv": ["cat"], "environment": {}, "input": 3, "lines": False, "of": None, "seconds": None}


def test_a_command_whose_input_is_cut_off_is_not_run() -> None:
    still = Still()
    assert ask(still, json.dumps(RUN).encode() + b"\nab") == b""
    assert still.ran == []
    assert json.loads(ask(still, json.dumps(RUN).encode() + b"\nabc"))["code"] == 0
    assert [command.input for command in still.ran] == [b"abc"]


@pytest.mark.parametrize("question", [b"", b'{"do": "abo', json.dumps(RUN).encode()])
def test_half_a_question_is_none(question: bytes) -> None:
    assert ask(Still(), question) == b""


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"do": 7},
        {"do": "fly"},
        {"do": "forward"},
        {"do": "forward", "ports": ["x"]},
        {"do": "close", "ports": {}},
        {**RUN, "argv": "cat"},
        {**RUN, "input": "3"},
        {**RUN, "environment": [1]},
        {**RUN, "of": 1.0},
        [],
        7,
    ],
)
def test_a_question_of_another_shape_is_answered_with_an_error(question: object) -> None:
    still = Still()
    found = wire.error_of(json.loads(ask(still, json.dumps(question).encode() + b"\nabc")))
    assert "the daemon that keeps the connection failed: ProtocolError" in found.message
    assert still.ran == []
