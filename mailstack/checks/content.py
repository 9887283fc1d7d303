"""Content: a mail arrives unchanged, up to the size limit, and mailboxes are as defined."""

from __future__ import annotations

import hashlib
import os
from email.message import EmailMessage, Message

from mailstack.checks import Family
from mailstack.checks.bench import ARRIVAL_SECONDS, Bench
from mailstack.checks.deliveries import only_copy, submit
from mailstack.checks.judging import NotApplicable, expect
from mailstack.checks.listeners import envelope
from mailstack.protocol import imap

family = Family("delivery")

# Bytes. To move a larger message twice takes too long on a busy machine.
_LARGEST = 64 * 1024**2
# Bytes a second. A machine that runs eight labs still delivers as much.
_SLOWEST = 500_000
_SPECIAL_USE = frozenset({"\\Drafts", "\\Sent", "\\Archive", "\\Junk", "\\Trash"})


def _same(sent: bytes, got: bytes, what: str = "") -> str:
    """Return the evidence that the same bytes arrived. Raises Unmet."""
    sums = [hashlib.sha256(data).hexdigest() for data in (sent, got)]
    expect(sent == got, f"{what}sent {len(sent)} bytes {sums[0]}, got {len(got)} {sums[1]}")
    return f"{what}{len(got)} bytes, sha256 {sums[1]}"


def _head(message: EmailMessage) -> bytes:
    """Return a message's header and the empty line after it, as sent."""
    return message.as_bytes().partition(b"\n\n")[0].replace(b"\n", b"\r\n") + b"\r\n\r\n"


def _same_text(bench: Bench, sent: bytes, what: str, encoding: str = "7bit") -> str:
    """Send a message with the body `sent`, in CRLF lines, and compare it with the copy in the mailbox."""
    message = bench.message([bench.bob])
    message.replace_header("Content-Transfer-Encoding", encoding)
    copy = only_copy(bench, bench.bob, submit(bench, message, [bench.bob], raw=_head(message) + sent))
    got = copy.obj.as_bytes().partition(b"\n\n")[2].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return _same(sent, got, f"{what}: ")


@family("utf-8", "a text in UTF-8 arrives byte for byte", "RFC 6152 (8BITMIME); RFC 2045, section 6.2")
def utf_8_arrives_unchanged(bench: Bench) -> str:
    return _same_text(bench, "Grüße, здравствуйте, 你好, 🐘\r\n".encode() * 20, "8-bit text", "8bit")


@family("dots", "lines of dots arrive unchanged", "RFC 5321, section 4.5.2")
def lines_of_dots_arrive_unchanged(bench: Bench) -> str:
    return _same_text(bench, b".\r\n..\r\n...\r\n.a\r\n\r\n.\r\nend\r\n", "dots")


@family("long-lines", "lines of 998 characters arrive unbroken", "RFC 5322, section 2.1.1; RFC 5321, section 4.5.3.1.6")
def long_lines_arrive_unbroken(bench: Bench) -> str:
    return _same_text(bench, (b"x" * 998 + b"\r\n") * 5, "5 lines of 998")


@family("attachment", "a binary attachment arrives byte for byte", "RFC 2045, section 6.8; RFC 2183")
def attachment_arrives_unchanged(bench: Bench) -> str:
    message = bench.message([bench.bob])
    sent = bytes(range(256)) * 64 + os.urandom(48 * 1024)
    message.add_attachment(sent, maintype="application", subtype="octet-stream", filename="bytes.bin")
    copy = only_copy(bench, bench.bob, submit(bench, message, [bench.bob]))
    parts = [part for part in copy.obj.walk() if part.get_filename() == "bytes.bin"]
    expect(len(parts) == 1, f"{len(parts)} parts named bytes.bin")
    return _same(sent, _payload(parts[0]))


def _payload(message: Message) -> bytes:
    payload = message.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _limit(bench: Bench) -> int:
    """Return the lab's size limit of a message, in bytes."""
    limit = bench.lab.definition().limits.message_size
    if limit > _LARGEST:
        raise NotApplicable(f"the lab's limit is {limit} bytes: too much to send in a check")
    return limit


def _filled(message: EmailMessage, size: int) -> bytes:
    """Return the message with a body that makes it `size` bytes long, or up to a line shorter."""
    head, line = _head(message), b"x" * 76 + b"\r\n"
    return head + line * ((size - len(head)) // len(line))


@family("over-limit", "a mail over the size limit is refused: 552, declared or not", "RFC 1870, sections 6.2 and 6.3")
def too_large_a_mail_is_refused(bench: Bench) -> str:
    limit = _limit(bench)
    with bench.logged_in(587, bench.alice) as session:
        offered = session.esmtp_features.get("size", "none")
        expect(offered == str(limit), f"EHLO says SIZE {offered}; the lab's limit is {limit}")
        code, text = session.command(f"MAIL FROM:<{bench.alice}> SIZE={limit + 1}")
        expect(code == 552, f"SIZE={limit + 1}: {code} {text}")
        session.rset()  # Postfix remembers the size until then
        envelope(session, bench.alice, bench.bob)
        later, reply = session.data(_filled(bench.message([bench.bob]), limit + 1024))
    after = reply.decode(errors="replace")
    expect(later == 552, f"{limit + 1024} bytes of data: {later} {after}")
    return f"declared: {code} {text}; sent: {later} {after}"


@family("under-limit", "a mail just under the size limit arrives", "RFC 1870, section 3")
def mail_under_the_limit_arrives(bench: Bench) -> str:
    limit = _limit(bench)
    message = bench.message([bench.bob])
    # The limit includes what the servers add to the message (trace fields, about 1 KB).
    size = limit - 4096
    accepted = submit(bench, message, [bench.bob], raw=_filled(message, size))
    seconds = ARRIVAL_SECONDS + size / _SLOWEST
    copy = only_copy(bench, bench.bob, accepted, seconds=seconds, whole=False)
    with bench.box(bench.bob) as box:  # at once, since it counts towards the user's quota
        box.delete([copy.uid or ""])
    expect(copy.size_rfc822 >= size, f"sent {size} bytes, got {copy.size_rfc822}")
    return f"limit {limit}: {size} bytes sent, {copy.size_rfc822} in the mailbox"


@family("special-use", "the mailbox has its special-use folders", "RFC 6154, section 2")
def special_use_folders_exist(bench: Bench) -> str:
    with bench.box(bench.alice) as box:
        flags = {flag for folder in box.folder.list() for flag in folder.flags}
    expect(flags >= _SPECIAL_USE, f"missing: {' '.join(sorted(_SPECIAL_USE - flags))}")
    return " ".join(sorted(_SPECIAL_USE))


@family("quota", "the mailbox has the quota of the definition", "RFC 9208, section 4.2")
def quota_is_as_defined(bench: Bench) -> str:
    account = bench.lab.definition().accounts[0]
    quota = account.quota if account.quota is not None else bench.lab.definition().limits.mailbox_quota
    with bench.box(account.address) as box:
        found = imap.quota(box)
    said = f"{found[0]} of {found[1]} KiB in use" if found else "no limit"
    expect(
        found is not None and found[1] == quota // 1024, f"GETQUOTAROOT says {said}; the definition {quota // 1024} KiB"
    )
    return said
