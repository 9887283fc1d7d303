"""Delivery: a mail arrives exactly once for each recipient, and for nobody else."""

from __future__ import annotations

from email import message_from_bytes

from mailstack.checks import Family
from mailstack.checks.bench import Bench
from mailstack.checks.deliveries import (
    arrives_once,
    count_copies,
    delivery_report,
    only_copy,
    submit,
    uids,
    wait_until_dequeued,
)
from mailstack.checks.judging import NotApplicable, expect
from mailstack.checks.listeners import MTAS, STRANGER, Mta, envelope, session

family = Family("delivery")


@family("one-copy", "a mail arrives, exactly once", "RFC 5321, section 4.2.5")
def mail_arrives_once(bench: Bench) -> str:
    return arrives_once(bench, bench.bob, submit(bench, bench.message([bench.bob]), [bench.bob]))


@family("one-copy-465", "a mail that was submitted on 465 arrives, exactly once", "RFC 8314, section 3.3")
def mail_by_465_arrives_once(bench: Bench) -> str:
    return arrives_once(bench, bench.bob, submit(bench, bench.message([bench.bob]), [bench.bob], port=465))


@family("from-outside", "a mail from another domain's MTA arrives over 25", "RFC 5321, section 3.6.1")
def mail_from_outside_arrives(bench: Bench) -> str:
    message = bench.message([bench.bob], sender=STRANGER)
    return arrives_once(bench, bench.bob, submit(bench, message, [bench.bob], sender=STRANGER, port=25))


def _leads_to(bench: Bench, address: str, target: str) -> str:
    """Send a mail to `address`; it must arrive once in the mailbox of `target`."""
    return f"{address}: {arrives_once(bench, target, submit(bench, bench.message([address]), [address]))}"


@family("alias", "a mail to an alias arrives in the mailbox behind it", "RFC 5321, section 3.9.1; virtual(5)")
def alias_leads_to_its_mailbox(bench: Bench) -> str:
    accounts = bench.lab.definition().addresses()
    for alias in bench.lab.definition().aliases:
        if len(alias.targets) == 1 and alias.targets[0] in accounts:
            return _leads_to(bench, alias.address, alias.targets[0])
    raise NotApplicable("the lab has no alias for a single account")


@family("list-alias", "a mail to an alias for several arrives once with each", "RFC 5321, section 3.9.2; virtual(5)")
def list_alias_leads_to_each_mailbox(bench: Bench) -> str:
    accounts = set(bench.lab.definition().addresses())
    for alias in bench.lab.definition().aliases:
        if len(alias.targets) > 1 and accounts.issuperset(alias.targets):
            break
    else:
        raise NotApplicable("the lab has no alias for several accounts")
    # A member that is also named as a recipient still gets one copy.
    accepted = submit(bench, bench.message([alias.address]), [alias.address, alias.targets[0]])
    counts = {target: count_copies(bench, target, accepted) for target in alias.targets}
    expect(set(counts.values()) == {1}, f"copies: {counts}")
    return f"{alias.address} and {alias.targets[0]}: {counts}"


@family("plus", "a mail to user+detail@ arrives with the user", "RFC 5233; postconf(5), recipient_delimiter")
def detail_leads_to_the_user(bench: Bench) -> str:
    return _leads_to(bench, bench.bob.replace("@", "+detail@"), bench.bob)


@family("catch-all", "a mail to an unknown user arrives in the domain's catch-all; users keep their own", "virtual(5)")
def catch_all_gets_mail_for_unknown_users(bench: Bench) -> str:
    accounts = bench.lab.definition().addresses()
    for domain in bench.lab.definition().domains:
        if domain.catch_all in accounts:
            return _leads_to(bench, f"nobody@{domain.name}", str(domain.catch_all))
    raise NotApplicable("no domain of the lab has a catch-all")


@family("several", "a mail to several recipients arrives once with each, and with nobody else", "RFC 5321, section 3.3")
def each_recipient_gets_one_copy(bench: Bench) -> str:
    recipients = bench.others(2)
    accepted = submit(bench, bench.message(recipients), recipients)
    counts = {address: count_copies(bench, address, accepted) for address in recipients}
    wait_until_dequeued(bench, accepted)
    for address in bench.lab.definition().addresses()[:5]:
        if address not in recipients:
            with bench.box(address) as box:
                counts[address] = len(uids(box, accepted.message_id))
    return expect(counts == {address: int(address in recipients) for address in counts}, f"copies: {counts}")


@family("bcc", "the recipient of a blind copy is named in no header field", "RFC 5322, section 3.6.3")
def blind_copy_is_not_disclosed(bench: Bench) -> str:
    seen, blind = bench.others(2)
    accepted = submit(bench, bench.message([seen]), [seen, blind])
    for address in (seen, blind):
        headers = message_from_bytes(only_copy(bench, address, accepted).obj.as_bytes())
        # RFC 5321, section 7.2: trace fields must not name it either. Delivered-To may name the mailbox's own user.
        own = {"Delivered-To"} if address == blind else set()
        disclosing = {name for name, value in headers.items() if blind in str(value) or name.lower() == "bcc"} - own
        expect(not disclosing, f"the copy for {address} discloses {blind} in {', '.join(sorted(disclosing))}")
    return f"{blind} received a copy, and is named in none of its {len(headers.keys())} header fields"


@family(
    "null-sender",
    "a bounce (null sender) is accepted, and keeps its Return-Path: <>",
    "RFC 5321, sections 4.5.5 and 4.4",
)
def bounce_is_accepted(bench: Bench) -> str:
    message = bench.message([bench.bob], sender="mailer-daemon@outside.test")
    accepted = submit(bench, message, [bench.bob], sender="", port=25)
    path = "".join(dict(only_copy(bench, bench.bob, accepted).headers).get("return-path", ()))
    expect(path.strip() == "<>", f"Return-Path: {path}")
    return f"{accepted.queue_id}: Return-Path: {path}"


@family(
    "receipt",
    "a success report says that the mail was delivered, not relayed",
    "RFC 3461, section 4.1; RFC 3464, section 2.3.3; lmtp(8), flags=X",
)
def receipt_says_delivered(bench: Bench) -> str:
    message = bench.message([bench.bob])
    with bench.logged_in(587, bench.alice) as client:
        expect("dsn" in client.esmtp_features, f"EHLO offers no DSN: {' '.join(sorted(client.esmtp_features))}")
        client.sendmail(bench.alice, [bench.bob], message.as_bytes(), rcpt_options=["NOTIFY=SUCCESS"])
    received = delivery_report(bench, bench.alice, str(message["Message-ID"]))
    expect(received is not None, f"{bench.alice} received no delivery report")
    actions = [line for line in str(received).splitlines() if line.startswith("Action: ")]
    expect(actions == ["Action: delivered"], f"the report says {', '.join(actions) or 'nothing'}")
    return f"{bench.alice} received a report: {actions[0]}"


@family(
    "announced-{mta.name}",
    "EHLO announces nothing that never works ({mta.label})",
    "RFC 5321, section 4.1.1.1; RFC 1985 (ETRN); postconf(5), smtpd_discard_ehlo_keywords",
    mta=MTAS,
)
def announced_extensions_work(bench: Bench, mta: Mta) -> str:
    if mta.sender:
        bench.refuse_blank_sender()
    with session(bench, mta) as client:
        offered = " ".join(sorted(client.esmtp_features))
        code, text = client.command(f"ETRN {bench.lab.definition().mailname}")
    expect("etrn" not in client.esmtp_features, f"EHLO offers: {offered}; ETRN: {code} {text}")
    return f"EHLO offers: {offered}"


@family(
    "unknown-{mta.port}",
    "an unknown user is refused at once: 550 ({mta.port})",
    "RFC 5321, section 3.3; RFC 3463 (5.1.1)",
    mta=MTAS[:2],
)
def unknown_user_is_refused(bench: Bench, mta: Mta) -> str:
    domain = bench.alice.partition("@")[2]
    with session(bench, mta) as client:
        code, text = envelope(client, STRANGER if mta.port == 25 else bench.alice, f"no-such-user@{domain}")
    return expect(code == 550 and "5.1.1" in text, f"{code} {text}")
