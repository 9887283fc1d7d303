"""A mail is sent in pieces, which together are the mail, with the announced size."""

from __future__ import annotations

import email
import tracemalloc
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.errors import CheckFailed
from mailstack.message import draft
from mailstack.message.outgoing import Outgoing, dot_stuffed


def message(body: str = "Hello.\n") -> EmailMessage:
    return draft.new_message(sender="a@example.com", to=["b@example.com"], subject="Grüße", body=body)


def read(raw: bytes) -> list[bytes]:
    """Return the content of each attachment of a message."""
    found = email.message_from_bytes(raw, policy=default)
    return [part.get_payload(decode=True) for part in found.iter_attachments()]  # type: ignore[misc]


@pytest.mark.parametrize("octets", [0, 1, 2, 3, 56, 57, 58, 114, 58_368, 58_369, 200_000])
def test_an_attachment_arrives_byte_for_byte_and_the_size_is_known_before(tmp_path: Path, octets: int) -> None:
    content = (bytes(range(256)) * (octets // 256 + 1))[:octets]
    (tmp_path / "a file.bin").write_bytes(content)
    (tmp_path / "b.txt").write_bytes(b"text\n")
    outgoing = Outgoing(message(), [tmp_path / "a file.bin", tmp_path / "b.txt"])
    raw = b"".join(outgoing.pieces())
    assert len(raw) == outgoing.size
    assert read(raw) == [content, b"text\n"]
    assert b"\n" not in raw.replace(b"\r\n", b"") and max(map(len, raw.split(b"\r\n"))) <= 998
    native = b"".join(outgoing.native())
    assert len(native) == outgoing.native_size
    assert native == raw.replace(b"\r\n", b"\n")


def test_without_attachments_it_is_the_message() -> None:
    one = message("Zeile žlutý\n.\n..\n")
    assert b"".join(Outgoing(one).pieces()) == one.as_bytes(policy=one.policy.clone(linesep="\r\n"))


@given(st.lists(st.sampled_from([b".", b"\r\n", b"a", b"\r\n.", b"..", b""]), max_size=12))
def test_dots_are_doubled_wherever_a_piece_ends(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    lines = whole.split(b"\r\n")
    expected = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)
    assert b"".join(dot_stuffed(pieces)) == expected + b".\r\n"


def test_memory_does_not_grow_with_the_attachment(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(5_000_000)
    outgoing = Outgoing(message(), [tmp_path / "large"])
    tracemalloc.start()
    try:
        assert sum(map(len, dot_stuffed(outgoing.pieces()))) == outgoing.size + 3
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_becomes_shorter_meanwhile_ends_the_sending(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 100_000)
    outgoing = Outgoing(message(), [tmp_path / "log"])
    (tmp_path / "log").write_bytes(b"x" * 10)
    with pytest.raises(CheckFailed, match="has become shorter"):
        list(outgoing.pieces())
    (tmp_path / "log").unlink()
    with pytest.raises(CheckFailed, match="cannot be read"):
        list(outgoing.pieces())
    (tmp_path / "log").write_bytes(b"y" * 200_000)  # longer: as much as was announced
    assert len(b"".join(outgoing.pieces())) == outgoing.size
