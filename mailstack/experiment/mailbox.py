"""The user agent of the recipient: it lists mails, shows one, and decodes MIME parts."""

from __future__ import annotations

import hashlib
import struct
import tempfile
import zlib
from pathlib import Path

from mailstack.actions import mailboxes, sending
from mailstack.checks.judging import Unmet, expect
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.first_mail import BODY, SUBJECT, plain
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Steps

steps = Steps()

NAME, TYPE = "letter.png", "image/png"


@steps(
    "mime",
    "MIME carries an image byte for byte",
    row="MIME carries what plain text cannot: attachments, images.",
    done="Made a small PNG image, and sent it as an attachment with mail on the student's machine.",
    expected=f"The mail has a part {TYPE} called {NAME}, encoded in lines of plain text; decoded, its bytes are those "
    "that were sent.",
    needs=("credentials",),
)
def image_is_carried(scene: Scene, show: Evidence) -> None:
    image = picture()
    message_id = scene.new_id(scene.student, "image")
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / NAME
        file.write_bytes(image)
        letter = sending.Letter(scene.student, (scene.recipient,), "A picture", "See the attached picture.", (file,))
        sending.from_sender(scene.lab, letter, message_id)
    found = scene.message(scene.recipient, message_id)
    parts = [part for part in found.parts if not part.has_parts]
    show.table(
        "the parts of the mail",
        ("type", "name", "transfer encoding", "bytes"),
        [(p.type, p.name or "-", p.encoding or "-", len(found.content(p))) for p in parts],
    )
    pictures = [part for part in parts if part.name == NAME]
    expect(found.field("mime-version") == "1.0", "the mail has no MIME-Version: 1.0")
    expect(parts[0].type == "text/plain", f"the mail begins with {parts[0].type}, not with its text")
    expect(len(pictures) == 1, f"{len(pictures)} parts have the name {NAME}")
    part, arrived = pictures[0], found.content(pictures[0])
    lines = plain(found.raw[part.start : part.end]).splitlines()
    header = [f"{name}: {value}" for name, value in part.fields]
    show.text("the part as it was sent", "\n".join([*header, "", *lines[:3], "…"]))
    show.table(
        "before and after",
        ("", "bytes", "SHA-256"),
        [
            ("sent", len(image), hashlib.sha256(image).hexdigest()),
            ("arrived", len(arrived), hashlib.sha256(arrived).hexdigest()),
        ],
    )
    show.image("the picture, as it arrived", NAME, TYPE, arrived)
    expect(part.type == TYPE, f"the part is {part.type}, not {TYPE}")
    # RFC 2045, sections 6.7 and 6.8: such lines pass every MTA.
    expect(all(line.isascii() and len(line) <= 76 for line in lines), "it was not encoded as lines of plain text")
    expect(arrived == image, "the bytes that arrived are not those that were sent")


def picture(width: int = 96, height: int = 64) -> bytes:
    """Draw an envelope as a PNG image of three colours (PNG, third edition: chunks, filter 0, zlib)."""
    ink, paper, ground = b"\x1f\x3a\x5f", b"\xf6\xf1\xe4", b"\x8f\xb8\xd8"
    rows = []
    for y in range(height):
        row = bytearray(b"\0")
        for x in range(width):
            edge = min(x, y, width - 1 - x, height - 1 - y)
            flap = abs(min(x, width - 1 - x) * height * 3 // (width * 2) - y) < 2
            row += ground if edge < 6 else ink if edge < 8 or flap else paper
        rows.append(bytes(row))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@steps(
    "receiving",
    "The user agent lists the mails, and shows the selected one",
    row="Receiving: the user agent looks at the mailbox, lists the mails with a short description of each, and shows "
    "the one that the user selects, in the terminal.",
    done="Opened the recipient's mailbox over IMAP, listed the mails, selected the one with the subject "
    f"“{SUBJECT}”, and showed it.",
    expected="A list with date, sender, subject, size and first words of each mail, the first mail among them; and its "
    "text.",
    needs=("arrive", "mime"),
)
def mails_are_listed_and_shown(scene: Scene, show: Evidence) -> None:
    with scene.box(scene.recipient) as box:
        mails = mailboxes.summaries(box)
    show.table(
        "the list",
        ("number", "date", "from", "subject", "bytes", "first words"),
        [(m.uid, f"{m.date:%Y-%m-%d %H:%M}", m.sender, m.subject, m.size, " ".join(m.preview.split())) for m in mails],
    )
    expect(len(mails) > 1, f"{len(mails)} mails are listed")
    chosen = [each for each in mails if each.message_id == scene.first_mail]
    expect(len(chosen) == 1, f"the first mail is listed {len(chosen)} times")
    listed = chosen if scene.mark else mails  # in a lab of the student's own, there may be mails without any
    expect(all(each.sender and each.subject for each in listed), "a mail is listed without its sender or its subject")
    expect(chosen[0].subject == SUBJECT, f"its subject in the list is “{chosen[0].subject}”")
    expect(BODY.startswith(chosen[0].preview.strip()[:20]), f"its first words in the list are “{chosen[0].preview}”")
    with scene.box(scene.recipient) as box:
        found = mailboxes.message(box, chosen[0].uid)
    if found is None:
        raise Unmet("the listed mail cannot be read")
    shown = found.readable.strip()
    show.text("the selected mail", f"From: {found.field('from')}\nSubject: {found.field('subject')}\n\n{shown}")
    expect(shown == BODY, f"its text is “{shown}”")
