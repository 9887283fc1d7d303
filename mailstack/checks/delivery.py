"""What was sent arrives: where it should, once, and as it was."""

from __future__ import annotations

import os
from email import message_from_bytes
from email.message import EmailMessage, Message
from typing import TYPE_CHECKING

from mailstack.checks import Family, NotApplicable, Unmet, expect, listeners
from mailstack.checks.bench import ARRIVAL_SECONDS, Bench, sha256
from mailstack.checks.listeners import Mta
from mailstack.mail import Smtp

if TYPE_CHECKING:
    from imap_tools import MailMessage

family = Family("delivery")


@family("one-copy", "a mail arrives, exactly once", "RFC 5321, section 4.2.5")
def _(bench: Bench) -> str:
    accepted = bench.submit(bench.message([bench.bob]), [bench.bob])
    copies = bench.arrived(bench.bob, accepted)
    expect(len(copies) == 1, f"{len(copies)} copies of {accepted.queue_id}")
    return f"{accepted.queue_id}: 1 copy for {bench.bob}"


@family("one-copy-465", "a mail that was submitted on 465 arrives, exactly once", "RFC 8314, section 3.3")
def _(bench: Bench) -> str:
    accepted = bench.submit(bench.message([bench.bob]), [bench.bob], port=465)
    copies = bench.arrived(bench.bob, accepted)
    expect(len(copies) == 1, f"{len(copies)} copies of {accepted.queue_id}")
    return f"{accepted.queue_id}: 1 copy for {bench.bob}"


@family("from-outside", "a mail from another domain's MTA arrives over 25", "RFC 5321, section 3.6.1")
def _(bench: Bench) -> str:
    message = bench.message([bench.bob], sender="someone@outside.test")
    accepted = bench.submit(message, [bench.bob], sender="someone@outside.test", port=25)
    copies = bench.arrived(bench.bob, accepted)
    expect(len(copies) == 1, f"{len(copies)} copies of {accepted.queue_id}")
    return f"{accepted.queue_id}: 1 copy for {bench.bob}"


@family("alias", "a mail to an alias arrives in the mailbox behind it", "RFC 5321, section 3.9.1; virtual(5)")
def _(bench: Bench) -> str:
    accounts = bench.lab.definition().addresses()
    aliases = [a for a in bench.lab.definition().aliases if len(a.targets) == 1 and a.targets[0] in accounts]
    if not aliases:
        raise NotApplicable("the lab has no alias for a single account")
    alias = aliases[0]
    accepted = bench.submit(bench.message([alias.address]), [alias.address])
    copies = bench.arrived(alias.targets[0], accepted)
    expect(len(copies) == 1, f"{len(copies)} copies for {alias.targets[0]}")
    return f"{alias.address}: 1 copy for {alias.targets[0]}"


@family("list-alias", "a mail to an alias for several arrives once with each", "RFC 5321, section 3.9.2; virtual(5)")
def _(bench: Bench) -> str:
    accounts = set(bench.lab.definition().addresses())
    aliases = [a for a in bench.lab.definition().aliases if len(a.targets) > 1 and accounts.issuperset(a.targets)]
    if not aliases:
        raise NotApplicable("the lab has no alias for several accounts")
    alias = aliases[0]
    # Named besides, one of them still gets one copy.
    accepted = bench.submit(bench.message([alias.address]), [alias.address, alias.targets[0]])
    counts = {target: len(bench.arrived(target, accepted)) for target in alias.targets}
    expect(set(counts.values()) == {1}, f"copies: {counts}")
    return f"{alias.address} and {alias.targets[0]}: {counts}"


@family("plus", "a mail to user+detail@ arrives with the user", "RFC 5233; postconf(5), recipient_delimiter")
def _(bench: Bench) -> str:
    local, _, domain = bench.bob.partition("@")
    address = f"{local}+detail@{domain}"
    accepted = bench.submit(bench.message([address]), [address])
    copies = bench.arrived(bench.bob, accepted)
    expect(len(copies) == 1, f"{len(copies)} copies")
    return f"{address}: 1 copy for {bench.bob}"


@family("catch-all", "a mail to nobody arrives with the domain's catch-all; users keep their own", "virtual(5)")
def _(bench: Bench) -> str:
    definition = bench.lab.definition()
    accounts = definition.addresses()
    found = [d for d in definition.domains if d.catch_all in accounts]
    if not found:
        raise NotApplicable("no domain of the lab has a catch-all")
    domain, target = found[0].name, str(found[0].catch_all)
    accepted = bench.submit(bench.message([f"nobody@{domain}"]), [f"nobody@{domain}"])
    copies = bench.arrived(target, accepted)
    expect(len(copies) == 1, f"{len(copies)} copies for {target}")
    return f"nobody@{domain}: 1 copy for {target}"


@family("several", "a mail to several arrives once with each, and with nobody else", "RFC 5321, section 3.3")
def _(bench: Bench) -> str:
    first, second = bench.others(2)
    accepted = bench.submit(bench.message([first, second]), [first, second])
    counts = {address: len(bench.arrived(address, accepted)) for address in (first, second)}
    counts |= {
        address: len(bench.copies(address, accepted))
        for address in bench.lab.definition().addresses()[:5]
        if address not in (first, second)
    }
    expected = {address: int(address in (first, second)) for address in counts}
    expect(counts == expected, f"copies: {counts}")
    return f"copies: {counts}"


@family("bcc", "who gets a blind copy stands in no header", "RFC 5322, section 3.6.3")
def _(bench: Bench) -> str:
    seen, blind = bench.others(2)
    accepted = bench.submit(bench.message([seen]), [seen, blind])
    for address in (seen, blind):
        copy = _only(bench.arrived(address, accepted))
        headers = message_from_bytes(copy.obj.as_bytes())
        # RFC 5321, section 7.2: not in a trace field either. Delivered-To names the mailbox's own user only.
        telling = [n for n, v in headers.items() if blind in str(v) and not (address == blind and n == "Delivered-To")]
        expect("Bcc" not in headers and not telling, f"the copy for {address} tells of {blind} in {telling or 'Bcc'}")
    return f"{blind} got a copy, and stands in none of {len(headers.keys())} header fields"


@family(
    "null-sender",
    "a bounce (null sender) is accepted, and keeps its Return-Path: <>",
    "RFC 5321, sections 4.5.5 and 4.4",
)
def _(bench: Bench) -> str:
    message = bench.message([bench.bob], sender="mailer-daemon@outside.test")
    accepted = bench.submit(message, [bench.bob], sender="", port=25)
    copy = _only(bench.arrived(bench.bob, accepted))
    path = "".join(dict(copy.headers).get("return-path", ()))
    expect(path.strip() == "<>", f"Return-Path: {path}")
    return f"{accepted.queue_id}: Return-Path: {path}"


def _only(copies: list[MailMessage]) -> MailMessage:
    """The copy, where one is what there should be."""
    expect(len(copies) == 1, f"{len(copies)} copies")
    return copies[0]


@family(
    "receipt",
    "a success report says that the mail was delivered, not relayed",
    "RFC 3461, section 4.1; RFC 3464, section 2.3.3; lmtp(8), flags=X",
)
def _(bench: Bench) -> str:
    message = bench.message([bench.bob])
    with bench.logged_in(587, bench.alice) as session:
        expect("dsn" in session.esmtp_features, f"EHLO offers no DSN: {' '.join(sorted(session.esmtp_features))}")
        session.sendmail(bench.alice, [bench.bob], message.as_bytes(), rcpt_options=["NOTIFY=SUCCESS"])
    report = bench.bounce(bench.alice, str(message["Message-ID"]), ARRIVAL_SECONDS)
    expect(report is not None, f"no report for {bench.alice}")
    actions = [line for line in str(report).splitlines() if line.startswith("Action: ")]
    expect(actions == ["Action: delivered"], f"the report says {', '.join(actions) or 'nothing'}")
    return f"{bench.alice} got a report: {actions[0]}"


def _announced(mta: Mta) -> None:
    @family(
        f"announced-{mta.name}",
        f"EHLO announces nothing that never works ({'the sender' if mta.sender else mta.port})",
        "RFC 5321, section 4.1.1.1; RFC 1985 (ETRN); postconf(5), smtpd_discard_ehlo_keywords",
    )
    def _(bench: Bench) -> str:
        with listeners.session(bench, mta) as connection:
            connection.ehlo_or_helo_if_needed()
            offered = " ".join(sorted(connection.esmtp_features))
            code, text = connection.command(f"ETRN {bench.lab.definition().mailname}")
            expect("etrn" not in connection.esmtp_features, f"EHLO offers: {offered}; ETRN: {code} {text}")
            return f"EHLO offers: {offered}"


for _mta in listeners.MTAS:
    _announced(_mta)


def _unknown(port: int) -> None:
    @family(
        f"unknown-{port}",
        f"an unknown user is refused at once: 550 ({port})",
        "RFC 5321, section 3.3; RFC 3463 (5.1.1)",
    )
    def _(bench: Bench) -> str:
        domain = bench.alice.partition("@")[2]
        with bench.smtp(25) if port == 25 else bench.logged_in(port, bench.alice) as session:
            session.command(f"MAIL FROM:<{'someone@outside.test' if port == 25 else bench.alice}>")
            code, text = session.command(f"RCPT TO:<no-such-user@{domain}>")
        expect(code == 550 and "5.1.1" in text, f"{code} {text}")
        return f"{code} {text}"


for _port in (25, 587):
    _unknown(_port)


def _payload(message: Message) -> bytes:
    payload = message.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _same_text(bench: Bench, message: EmailMessage, sent: bytes, what: str) -> str:
    """Send a message whose body is `sent`, in CRLF lines, and compare what is in the mailbox."""
    head = message.as_bytes().partition(b"\n\n")[0].replace(b"\n", b"\r\n")
    accepted = bench.submit(message, [bench.bob], raw=head + b"\r\n\r\n" + sent)
    copy = _only(bench.arrived(bench.bob, accepted))
    got = copy.obj.as_bytes().partition(b"\n\n")[2].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    expect(sha256(got) == sha256(sent), f"{what}: sent {len(sent)} bytes {sha256(sent)}, got {len(got)} {sha256(got)}")
    return f"{what}: {len(got)} bytes, sha256 {sha256(got)}"


@family("utf-8", "a text in UTF-8 arrives byte for byte", "RFC 6152 (8BITMIME); RFC 2045, section 6.2")
def _(bench: Bench) -> str:
    message = bench.message([bench.bob])
    message.replace_header("Content-Transfer-Encoding", "8bit")
    return _same_text(bench, message, "Grüße, здравствуйте, 你好, 🐘\r\n".encode() * 20, "8-bit text")


@family("dots", "lines of dots arrive as they were", "RFC 5321, section 4.5.2")
def _(bench: Bench) -> str:
    return _same_text(bench, bench.message([bench.bob]), b".\r\n..\r\n...\r\n.a\r\n\r\n.\r\nend\r\n", "dots")


@family("long-lines", "lines of 998 characters arrive unbroken", "RFC 5322, section 2.1.1; RFC 5321, section 4.5.3.1.6")
def _(bench: Bench) -> str:
    return _same_text(bench, bench.message([bench.bob]), (b"x" * 998 + b"\r\n") * 5, "5 lines of 998")


@family("attachment", "a binary attachment arrives byte for byte", "RFC 2045, section 6.8; RFC 2183")
def _(bench: Bench) -> str:
    message = bench.message([bench.bob])
    sent = bytes(range(256)) * 64 + os.urandom(48 * 1024)
    message.add_attachment(sent, maintype="application", subtype="octet-stream", filename="bytes.bin")
    accepted = bench.submit(message, [bench.bob])
    copy = _only(bench.arrived(bench.bob, accepted))
    parts = [part for part in copy.obj.walk() if part.get_filename() == "bytes.bin"]
    expect(len(parts) == 1, f"{len(parts)} parts named bytes.bin")
    got = _payload(parts[0])
    expect(sha256(got) == sha256(sent), f"sent {len(sent)} bytes {sha256(sent)}, got {len(got)} {sha256(got)}")
    return f"{len(got)} bytes, sha256 {sha256(got)}"


# A message may be too large to be worth moving twice on a busy machine.
_LARGEST = 64 * 1024**2
# Bytes a second that a machine with eight labs at work still delivers.
_SLOWEST = 500_000


@family("over-limit", "a mail over the size limit is refused: 552, declared or not", "RFC 1870, sections 6.2 and 6.3")
def _(bench: Bench) -> str:
    limit = _limit(bench)
    with bench.logged_in(587, bench.alice) as session:
        offered = session.esmtp_features.get("size", "none")
        expect(offered == str(limit), f"EHLO says SIZE {offered}; the lab's limit is {limit}")
        code, text = session.command(f"MAIL FROM:<{bench.alice}> SIZE={limit + 1}")
        expect(code == 552, f"SIZE={limit + 1}: {code} {text}")
    with bench.logged_in(587, bench.alice) as session:
        session.command(f"MAIL FROM:<{bench.alice}>")
        session.command(f"RCPT TO:<{bench.bob}>")
        later, after = _data(session, bench, limit + 1024)
        expect(later == 552, f"{limit + 1024} bytes of data: {later} {after}")
    return f"declared: {code} {text}; sent: {later} {after}"


@family("under-limit", "a mail just under the size limit arrives", "RFC 1870, section 3")
def _(bench: Bench) -> str:
    limit = _limit(bench)
    message = bench.message([bench.bob])
    # What the servers add to the message (trace fields, about 1 KB) counts.
    size = limit - 4096
    accepted = bench.submit(message, [bench.bob], raw=_filled(message, size))
    copy = _only(bench.arrived(bench.bob, accepted, seconds=ARRIVAL_SECONDS + size / _SLOWEST))
    got = copy.size_rfc822
    _forget(bench, copy.uid)
    expect(got >= size, f"sent {size} bytes, got {got}")
    return f"limit {limit}: {size} bytes sent, {got} in the mailbox"


def _limit(bench: Bench) -> int:
    limit = bench.lab.definition().limits.message_size
    if limit > _LARGEST:
        raise NotApplicable(f"the lab's limit is {limit} bytes: too much to send in a check")
    return limit


def _filled(message: EmailMessage, size: int) -> bytes:
    head = message.as_bytes().partition(b"\n\n")[0].replace(b"\n", b"\r\n") + b"\r\n\r\n"
    line = b"x" * 76 + b"\r\n"
    return head + line * ((size - len(head)) // len(line))


def _data(session: Smtp, bench: Bench, size: int) -> tuple[int, str]:
    code, text = session.data(_filled(bench.message([bench.bob]), size))
    return code, text.decode(errors="replace")


def _forget(bench: Bench, uid: str | None) -> None:
    """Take a large mail out of the mailbox again: it weighs on the user's quota."""
    if uid:
        with bench.box(bench.bob) as box:
            box.delete([uid])


@family("special-use", "the mailbox has its special-use folders", "RFC 6154, section 2")
def _(bench: Bench) -> str:
    with bench.box(bench.alice) as box:
        flags = {flag for folder in box.folder.list() for flag in folder.flags}
    wanted = {"\\Drafts", "\\Sent", "\\Archive", "\\Junk", "\\Trash"}
    expect(wanted <= flags, f"missing: {' '.join(sorted(wanted - flags))}")
    return " ".join(sorted(wanted))


@family("quota", "the mailbox has the quota of the definition", "RFC 9208, section 4.2")
def _(bench: Bench) -> str:
    account = bench.lab.definition().accounts[0]
    wanted = account.quota if account.quota is not None else bench.lab.definition().limits.mailbox_quota
    with bench.box(account.address) as box:
        _, (_, quotas) = box.client.getquotaroot("INBOX")
    text = " ".join(q.decode() for q in quotas if isinstance(q, bytes))
    limits = [int(word.rstrip(")")) for word in text.replace("(", " ").split()[-1:] if word.rstrip(")").isdecimal()]
    if limits != [wanted // 1024]:
        raise Unmet(f"GETQUOTAROOT says {text or 'nothing'}; the definition {wanted // 1024} KiB")
    return text
