"""Client Hellos without a TLS library: what a port offers, also what no library of this machine could ask for.

Each hello offers one version, and every cipher suite that the server has not chosen yet. The server's answers are in
the clear: up to its certificate (RFC 5246), or the Hello Retry Request for a key share that is missing (RFC 8446).
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from mailstack.model import Endpoint

SECONDS = 30.0

VERSIONS = {0x0300: "SSLv3", 0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
TLS_1_2, TLS_1_3 = 0x0303, 0x0304
# All that is registered but the two that are signals: TLS_EMPTY_RENEGOTIATION_INFO_SCSV and TLS_FALLBACK_SCSV.
SUITES = (*range(0x00FF), *range(0x1301, 0x1306), *range(0xC000, 0xC100), *range(0xCCA8, 0xCCAF))

HANDSHAKE = 22
SERVER_HELLO, CERTIFICATE, SERVER_KEY_EXCHANGE, SERVER_HELLO_DONE = 2, 11, 12, 14
GROUPS = (29, 23, 24, 25, 30, 256, 257)  # x25519, three of NIST, x448, two of FFDHE
SIGNATURES = (0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0203, 0x0201)

# What a client reads, up to a line that begins so, and then says, before TLS begins.
STARTTLS = {
    "smtp": ((b"220 ", b"EHLO client.test\r\n"), (b"250 ", b"STARTTLS\r\n"), (b"220 ", b"")),
    "imap": ((b"* OK", b"a STARTTLS\r\n"), (b"a OK", b"")),
    "pop3": ((b"+OK", b"STLS\r\n"), (b"+OK", b"")),
}


@dataclass(frozen=True)
class Answer:
    """What a server chooses, and how it shows who it is."""

    version: int
    suite: str
    compression: int
    extensions: tuple[int, ...]
    parameters: str  # the group of the key exchange
    chain: str  # a hash of its certificates; none in TLS 1.3, where they are encrypted


def offer(endpoint: Endpoint, starttls: str = "") -> dict[str, tuple[Answer, ...]]:
    """Return a port's answers by version, in the order in which it prefers them, if it does.

    The last one is to the same suites in reverse: a server with preferences of its own answers it like the first.
    """
    return {name: tuple(_answers(endpoint, starttls, version)) for version, name in VERSIONS.items()}


def _answers(endpoint: Endpoint, starttls: str, version: int) -> Iterator[Answer]:
    left = list(SUITES)
    while answer := ask(endpoint, starttls, version, left):
        yield answer
        left.remove(int(answer.suite, 16))
    if len(left) < len(SUITES) and (answer := ask(endpoint, starttls, version, SUITES[::-1])):
        yield answer


def ask(endpoint: Endpoint, starttls: str, version: int, suites: Sequence[int]) -> Answer | None:
    """Return a server's answer to one hello; None if it does not want this version, or none of the suites."""
    with (
        socket.create_connection((endpoint.host, endpoint.port), timeout=SECONDS) as connection,
        connection.makefile("rb") as stream,
    ):
        for expected, says in STARTTLS.get(starttls, ()):
            while not (line := stream.readline()).startswith(expected):
                assert line, f"{endpoint}: no {expected!r}"
            connection.sendall(says)
        connection.sendall(_hello(version, suites))
        return _answer(stream, version)


def _sized(data: bytes, count: int) -> bytes:
    """Return data with its length before it, in `count` bytes."""
    return len(data).to_bytes(count, "big") + data


def _numbers(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"!{len(numbers)}H", *numbers)


def _hello(version: int, suites: Sequence[int]) -> bytes:
    """Return a record with a Client Hello (RFC 8446, section 4.1.2)."""
    extensions = {
        10: _sized(_numbers(GROUPS), 2),
        11: b"\x01\x00",  # points that are not compressed
        13: _sized(_numbers(SIGNATURES), 2),
        22: b"",  # encrypt-then-MAC
        23: b"",  # the extended master secret
        35: b"",  # tickets
        0xFF01: b"\x00",  # secure renegotiation
    }
    if version == TLS_1_3:
        extensions |= {43: _sized(_numbers([version]), 1), 45: b"\x01\x01", 51: b"\x00\x00"}
    body = min(version, TLS_1_2).to_bytes(2, "big") + os.urandom(32) + _sized(b"", 1) + _sized(_numbers(suites), 2)
    body += _sized(b"\x00" if version == TLS_1_3 else b"\x01\x00", 1)  # DEFLATE, where there is such a thing
    body += _sized(b"".join(struct.pack("!H", kind) + _sized(data, 2) for kind, data in extensions.items()), 2)
    return struct.pack("!BH", HANDSHAKE, min(version, 0x0301)) + _sized(b"\x01" + _sized(body, 3), 2)


def _messages(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the messages of a handshake until an alert, or the end."""
    data = b""
    while len(header := stream.read(5)) == 5 and header[0] == HANDSHAKE:
        data += stream.read(int.from_bytes(header[3:], "big"))
        while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[1:4], "big")):
            yield data[0], data[4:end]
            data = data[end:]


def _answer(stream: BinaryIO, asked: int) -> Answer | None:
    found: dict[int, bytes] = {}
    for kind, body in _messages(stream):
        found[kind] = body
        if (kind == SERVER_HELLO and asked == TLS_1_3) or kind == SERVER_HELLO_DONE:
            break
    if SERVER_HELLO not in found:
        return None
    hello = found[SERVER_HELLO]
    rest = hello[35 + hello[34] :]  # after the version, the random, and the session's id
    extensions = dict(_extensions(rest[5:]))
    version = int.from_bytes(extensions.get(43) or hello[:2], "big")
    group = extensions[51] if version == TLS_1_3 else found.get(SERVER_KEY_EXCHANGE, b"")[:3]
    chain = hashlib.sha256(found[CERTIFICATE]).hexdigest() if CERTIFICATE in found else ""
    return (
        Answer(version, rest[:2].hex(), rest[2], tuple(sorted(extensions)), group.hex(), chain)
        if version == asked
        else None
    )


def _extensions(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, size = struct.unpack("!HH", data[:4])
        yield kind, data[4 : 4 + size]
        data = data[4 + size :]
