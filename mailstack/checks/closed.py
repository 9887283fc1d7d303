"""No mail and no packet leaves the lab."""

from __future__ import annotations

from mailstack import post
from mailstack.checks import Family, NotApplicable, Turn, expect
from mailstack.checks.bench import ARRIVAL_SECONDS, Bench
from mailstack.model import SERVICES, Result

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
    student = f"{post.STUDENT}@{bench.lab.definition().mailname}"
    if student not in bench.lab.definition().addresses():
        raise NotApplicable(f"there is no account {student} to be told")
    message_id = str(bench.message([_OUTSIDE])["Message-ID"])
    post.from_sender(bench.lab, post.Letter(student, (_OUTSIDE,), "for outside", "This must not leave."), message_id)
    bounce = bench.bounce(student, message_id, ARRIVAL_SECONDS)
    expect(bounce is not None, f"no bounce for {message_id} in the mailbox of {student}")
    text = " ".join(str(bounce).split())
    start = text.find("this lab is closed")
    expect(start >= 0, f"the bounce does not say why: {text[:200]}")
    return f"{student} got a delivery report: “…{text[start : start + 40]}…”"


# nc(1) takes one connection and is started again: what falls between two is refused, and says nothing of the way there.
_KNOCK = 'for try in 1 2 3; do nc -v -z -w 1 "$0" "$1" && exit; done; exit 1'

# It may only just have been started.
_AT_HOME = 'until nc -z -w 1 127.0.0.1 "$0"; do sleep 0.02; done'


def _knock(bench: Bench, container: str, address: str) -> Result:
    """Try to reach the listener: code 0 when it answers."""
    return bench.engine.execute(container, ["sh", "-c", _KNOCK, address, str(_PORT)])


def _no_way_out(service: str) -> None:
    @family(
        f"no-way-out-{service}",
        f"{service} cannot reach a listener outside the lab",
        "docs/architecture.md, closed; Docker's manual, internal networks",
    )
    def _(bench: Bench) -> str:
        if service == "sender" and bench.lab.state.relay:
            raise NotApplicable("the user opened the way out, for a relay outside")
        outside = bench.outside_listener(_PORT)
        heard = bench.engine.execute(
            outside.container, ["timeout", f"{ARRIVAL_SECONDS:g}", "sh", "-c", _AT_HOME, str(_PORT)]
        )
        expect(heard.code == 0, f"the listener itself does not answer within {ARRIVAL_SECONDS:g} s")
        tried = _knock(bench, bench.container(service), outside.address)
        place = f"{outside.address}:{_PORT} on the network {outside.network}"
        expect(tried.code == 1, f"{service} reached {place}" if tried.code == 0 else tried.stderr.strip())
        return f"{place}: {(tried.stderr.strip() or 'no answer').splitlines()[-1]}"


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
        expect(routes.startswith("Iface"), f"the routes cannot be read: {result.stderr.strip()}")
        expect(ttl.strip() == "1" or not default, f"a default route, and packets that live for {ttl} hops")
        return "no default route" if not default else f"packets live for {ttl} hop: no router passes them on"


for _service in SERVICES:
    _no_forwarding(_service)


# By the container's own clock (proc(5), uptime): how long it takes to start a program there is the engine's affair.
_TIMED_LOOK_UP = """
read -r begun idle </proc/uptime
getent ahostsv4 outside.test
code=$?
read -r now idle </proc/uptime
echo "$begun $now" | awk '{ print $2 - $1 }'
exit $code
"""


def _no_names(service: str) -> None:
    @family(
        f"names-{service}",
        f"{service} cannot look up an outside name, and does not wait for long",
        "docs/architecture.md, closed; resolv.conf(5)",
    )
    def _(bench: Bench) -> str:
        if service == "sender" and bench.lab.state.relay:
            raise NotApplicable("the user opened the way out, for a relay outside")
        # The name cannot exist (RFC 6761), and a closed lab has nobody to ask.
        result = bench.engine.execute(bench.container(service), ["sh", "-c", _TIMED_LOOK_UP])
        name, _, took = result.stdout.strip().rpartition("\n")
        # getent(1): 2 is “not found”; anything else is no answer to the question.
        expect(took, result.stderr.strip())
        expect(result.code == 2 and float(took) < 4, f"code {result.code} after {float(took):.1f} s: {name}")
        return f"not found, after {float(took):.1f} s"


for _service in SERVICES:
    _no_names(_service)


@family("loopback", "ports are published on 127.0.0.1 alone", "docs/architecture.md, closed")
def _(bench: Bench) -> str:
    published = bench.engine.published(list(map(bench.container, SERVICES)))
    elsewhere = [binding for binding in published if not binding.startswith("127.0.0.1:")]
    expect(published and not elsewhere, f"published elsewhere: {', '.join(elsewhere) or 'nothing is published'}")
    return f"{len(published)} ports, all on 127.0.0.1"
