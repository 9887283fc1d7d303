"""A hostile mail of any size, generated on demand and never kept in a file."""

from __future__ import annotations

import base64
import random

SUBJECT = b"\x1b[2J=?utf-8?b?G10wO293bmVkBw==?= =?nope?q?=ff?= \x9b31m \xe2\x80\xaegnp.exe"
NAMES = (b"../../etc/passwd", b"/etc/shadow", b"=?utf-8?q?=00nul=1B[31m?=", b"..", b"x" * 400 + b".png")
DEPTH = 100


def mail(size: int = 10_000_000, message_id: str = "<hostile@example.com>") -> bytes:
    """Return `size` bytes of mail with CRLF: multiparts nested 100 deep, broken encodings, names with `..`."""
    lines = [
        b"From: Eve <student@example.com>",
        b"To: bob@example.com",
        b"Date: Mon, 99 Foo 2026 25:61:61 +9999",
        b"Message-ID: " + message_id.encode(),
        b"Subject: " + SUBJECT,
        b"MIME-Version: 1.0",
        b'Content-Type: multipart/mixed; boundary="b0"',
        b"",
    ]
    for depth in range(1, DEPTH):
        lines += [b"--b%d" % (depth - 1), b'Content-Type: multipart/mixed; boundary="b%d"' % depth, b""]
    last = b"--b%d" % (DEPTH - 1)
    lines += [last, b"Content-Type: text/plain; charset=utf-7", b"Content-Transfer-Encoding: base64", b""]
    lines += [base64.b64encode(b"Hello \x1b[2J from the deep") + b"!!!=", b"b*o"]
    lines += [last, b"Content-Type: text/plain; charset=\xff\xfe", b"Content-Transfer-Encoding: quoted-printable", b""]
    lines += [b"broken =XX =", b"=1B]0;owned=07 and on", b"\x1b[31mred\x9b0m \xff"]
    for number, name in enumerate(NAMES):
        lines += [last, b'Content-Type: application/x-evil; name="%s"' % name]
        lines += [b'Content-Disposition: attachment; filename="%s"' % name, b"", b"number %d" % number]
    lines += [last, b'Content-Disposition: attachment; filename="blob.bin"', b"Content-Transfer-Encoding: base64", b""]
    end = [b"--b%d--" % depth for depth in range(DEPTH - 1, -1, -1)]
    head, tail = b"\r\n".join(lines) + b"\r\n", b"\r\n".join(end) + b"\r\n"
    rows = (size - len(head) - len(tail) - 100) // 78
    blob = random.Random(1).randbytes(57 * rows)
    body = b"".join(base64.b64encode(blob[at : at + 57]) + b"\r\n" for at in range(0, len(blob), 57))
    left = size - len(head) - len(body) - len(tail)
    return head + body + tail + b"x" * (left - 2) + b"\r\n"
