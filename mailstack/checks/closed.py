"""No mail and no packet leaves the lab."""

from __future__ import annotations

import time

from mailstack import post
from mailstack.checks import Family, NotApplicable, Turn, expect
from mailstack.checks.bench import ARRIVAL_SECONDS, Bench
from mailstack.model import SERVICES

family = Family("closed")

_OUTSIDE = "someone@outside.test"  # RFC 6761, section 6.2: `.test` is nobody's
_PORT = 2525


@family(
    "submission",
    "a user's mail for an outside domain is refused, and the user is told why",
    "RFC 5321, section 3.6.2; postconf(5), default_transport",
)
def _(bench: Bench) -> str:
    with bench.logged_in(587, bench.alice) as session:
        session.command(f"MAIL FROM:<{bench.alice}>")
        code, text = session.command(f"RCPT TO:<{_OUTSIDE}>")
    expect(500 <= code < 600 and "closed" in text, f"{code} {text}")
    return f"{code} {text}"


@family(
    "sender",
    "a mail for an outside domain from the sender's machine comes back, and says why",
    "RFC 5321, section 6.1; RFC 3464",
    turn=Turn.SENDER,
)
def _(bench: Bench) -> str:
    if bench.lab.state.relay:
        raise NotApplicable("the lab relays through a provider outside")
    student = f"{post.STUDENT}@{bench.lab.definition.mailname}"
    if student not in bench.lab.definition.addresses():
        raise NotApplicable(f"there is no account {student} to be told")
    message_id = str(bench.message([_OUTSIDE])["Message-ID"])
    post.from_sender(bench.lab, post.Letter(student, (_OUTSIDE,), "for outside", "This must not leave."), message_id)
    bounce = bench.bounce(student, message_id, ARRIVAL_SECONDS)
    expect(bounce is not None, f"no bounce for {message_id} in the mailbox of {student}")
    text = " ".join(str(bounce).split())
    expect("closed" in text, f"the bounce does not say why: {text[:200]}")
    start = text.index("this lab is closed")
    return f"{student} got a delivery report: “…{text[start : start + 40]}…”"


def _no_way_out(service: str) -> None:
    @family(
        f"no-way-out-{service}",
        f"{service} cannot reach a listener outside the lab",
        "DESIGN, decision 5; Docker's manual, internal networks",
    )
    def _(bench: Bench) -> str:
        outside = bench.outside_listener(_PORT)
        if service == "sender" and bench.lab.state.relay:
            raise NotApplicable("the user opened the way out, for a relay outside")
        if service == "sender":
            heard = bench.engine.execute(outside.container, ["nc", "-z", "-w", "2", "127.0.0.1", str(_PORT)])
            expect(heard.code == 0, f"the listener itself does not answer: {heard.stderr}")
        tried = bench.engine.execute(
            bench.container(service), ["nc", "-v", "-z", "-w", "1", outside.address, str(_PORT)]
        )
        expect(tried.code != 0, f"{service} reached {outside.address}:{_PORT}, on the network {outside.network}")
        return f"{outside.address}:{_PORT} on the network {outside.network}: {tried.stderr.strip() or 'no answer'}"


for _service in SERVICES:
    _no_way_out(_service)


def _no_forwarding(service: str) -> None:
    @family(
        f"no-forwarding-{service}",
        f"what {service} sends out of its networks is dropped on the way",
        "ip(7), ip_default_ttl; Docker's manual, internal networks",
    )
    def _(bench: Bench) -> str:
        if service == "sender" and bench.lab.state.relay:
            raise NotApplicable("the user opened the way out, for a relay outside")
        script = "cat /proc/sys/net/ipv4/ip_default_ttl; cat /proc/net/route"
        result = bench.engine.execute(bench.container(service), ["sh", "-c", script])
        ttl, _, routes = result.stdout.partition("\n")
        # /proc/net/route: the destination is the second column; 00000000 is the default route.
        default = [line for line in routes.splitlines()[1:] if line.split()[1] == "00000000"]
        expect(ttl.strip() == "1" or not default, f"a default route, and packets that live for {ttl} hops")
        return "no default route" if not default else f"packets live for {ttl} hop: no router passes them on"


for _service in SERVICES:
    _no_forwarding(_service)


def _no_names(service: str) -> None:
    @family(
        f"names-{service}",
        f"{service} cannot look up an outside name, and does not wait for long",
        "DESIGN, decision 5; resolv.conf(5)",
    )
    def _(bench: Bench) -> str:
        if service == "sender" and bench.lab.state.relay:
            raise NotApplicable("the user opened the way out, for a relay outside")
        # The name cannot exist (RFC 6761), and a closed lab has nobody to ask.
        begun = time.monotonic()
        result = bench.engine.execute(bench.container(service), ["getent", "ahostsv4", "outside.test"])
        took = time.monotonic() - begun
        expect(result.code != 0 and took < 4, f"code {result.code} after {took:.1f} s: {result.stdout.strip()}")
        return f"not found, after {took:.1f} s"


for _service in SERVICES:
    _no_names(_service)


@family("loopback", "ports are published on 127.0.0.1 alone", "DESIGN, decision 5")
def _(bench: Bench) -> str:
    published = bench.engine.published(list(map(bench.container, SERVICES)))
    elsewhere = [binding for binding in published if not binding.startswith("127.0.0.1:")]
    expect(published and not elsewhere, f"published elsewhere: {', '.join(elsewhere) or 'nothing is published'}")
    return f"{len(published)} ports, all on 127.0.0.1"
