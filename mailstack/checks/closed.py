"""A closed lab: no mail and no packet leaves it."""

from __future__ import annotations

from mailstack.actions import sending
from mailstack.checks import Concurrency, Family
from mailstack.checks.bench import ARRIVAL_SECONDS, Bench
from mailstack.checks.deliveries import delivery_report
from mailstack.checks.judging import NotApplicable, expect
from mailstack.checks.listeners import STRANGER, envelope_reply
from mailstack.lab import claims, healing
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, Result
from mailstack.roles import STANDARD, Role

family = Family("closed")

_PORT = 2525
# The checks of each server, by its name in compose/lab.yaml.
_ROLES = {name: role for role, name in STANDARD.items()}


@family(
    "submission",
    "a user's mail for an outside domain is refused, with the reason",
    "RFC 5321, section 3.6.2; postconf(5), default_transport",
)
def mail_for_outside_is_refused(bench: Bench) -> str:
    code, text = envelope_reply(bench.logged_in(587, bench.alice), bench.alice, STRANGER)
    return expect(500 <= code < 600 and "closed" in text, f"{code} {text}")


@family(
    "sender",
    "a mail from the sender's machine to an outside domain bounces, with the reason",
    "RFC 5321, section 6.1; RFC 3464",
    concurrency=Concurrency.SENDER,
)
def mail_for_outside_comes_back(bench: Bench) -> str:
    bench.refuse_outside_relay()
    bench.refuse_blank_sender()
    if bench.student not in bench.lab.definition().addresses():
        raise NotApplicable(f"there is no account {bench.student} to receive the bounce")
    message_id = str(bench.message([STRANGER])["Message-ID"])
    letter = sending.Letter(bench.student, (STRANGER,), "for outside", "This must not leave.")
    sending.from_sender(bench.lab, letter, message_id)
    bounce = delivery_report(bench, bench.student, message_id)
    expect(bounce is not None, f"no bounce for {message_id} in the mailbox of {bench.student}")
    text = " ".join(str(bounce).split())
    start = text.find("this lab is closed")
    expect(start >= 0, f"the bounce does not give the reason: {text[:200]}")
    return f"{bench.student} received a delivery report: “…{text[start : start + 40]}…”"


_WAIT_FOR_LISTENER = 'until nc -z -w 1 127.0.0.1 "$0"; do sleep 0.02; done'


def _start_outside_listener(bench: Bench) -> tuple[str, str, bool]:
    """Start a listener on a separate network; return the network, its address, and whether it accepts connections.

    The network has the lab's name with `-outside`. One that exists already is used, and kept.
    """
    name, state = healing.outside_name(bench.lab.name), bench.lab.state
    labels = {LABEL_LAB: bench.lab.name, LABEL_OWNER: state.owner, LABEL_EXPIRES: state.expires}
    if claims.make_network(bench.engine, name, labels):
        bench.cleanup.callback(bench.engine.remove, f"network {name}")
    bench.cleanup.callback(bench.engine.remove, f"container {name}")
    container, address = bench.engine.listen(name, f"mailstack/sender:{state.tag}", name, labels, _PORT)
    wait = ["timeout", f"{ARRIVAL_SECONDS:g}", "sh", "-c", _WAIT_FOR_LISTENER, str(_PORT)]
    return name, address, bench.engine.execute(container, wait).code == 0


# nc(1) takes one connection and is then restarted. A connection in between is refused, which proves nothing: try again.
_CONNECT = 'for try in 1 2 3; do nc -v -z -w 1 "$0" "$1" && exit; done; exit 1'


def _run(bench: Bench, service: str, script: str, *arguments: str) -> Result:
    """Run a shell script in a service. Raises NotApplicable for a sender that reaches a relay host outside the lab."""
    role = _ROLES[service]
    if role is Role.SENDER:
        bench.refuse_outside_relay()
    return bench.engine.execute(bench.container(role), ["sh", "-c", script, *arguments])


@family(
    "no-way-out-{service}",
    "{service} cannot reach a listener outside the lab",
    "docs/decisions.md, closed; Docker's manual, internal networks",
    service=tuple(_ROLES),
)
def listener_outside_is_out_of_reach(bench: Bench, service: str) -> str:
    network, address, listening = bench.once("listener outside", lambda: _start_outside_listener(bench))
    expect(listening, f"the listener outside the lab did not start within {ARRIVAL_SECONDS:g} s")
    result = _run(bench, service, _CONNECT, address, str(_PORT))
    place = f"{address}:{_PORT} on the network {network}"
    expect(result.code == 1, f"{service} reached {place}" if result.code == 0 else result.stderr.strip())
    return f"{place}: {(result.stderr.strip() or 'no answer').splitlines()[-1]}"


@family(
    "no-forwarding-{service}",
    "packets that {service} sends out of its networks are dropped on the way",
    "ip(7), ip_default_ttl; Docker's manual, internal networks",
    service=tuple(_ROLES),
)
def packets_are_not_forwarded(bench: Bench, service: str) -> str:
    result = _run(bench, service, "cat /proc/sys/net/ipv4/ip_default_ttl; cat /proc/net/route")
    ttl, _, routes = result.stdout.partition("\n")
    # /proc/net/route: the destination is the second column; 00000000 is the default route.
    default = [line for line in routes.splitlines()[1:] if line.split()[1] == "00000000"]
    expect(routes.startswith("Iface"), f"the routes cannot be read: {result.stderr.strip()}")
    expect(ttl.strip() == "1" or not default, f"there is a default route, and packets have a TTL of {ttl}")
    return "no default route" if not default else f"packets have a TTL of {ttl}: no router forwards them"


# Measured by the container's own clock (proc(5), uptime), since the engine takes time to start a program there.
_TIMED_LOOKUP = """
read -r start idle </proc/uptime
getent ahostsv4 outside.test
code=$?
read -r now idle </proc/uptime
echo "$start $now" | awk '{ print $2 - $1 }'
exit $code
"""


@family(
    "names-{service}",
    "{service} cannot look up an outside name, and does not wait for long",
    "docs/decisions.md, closed; resolv.conf(5)",
    service=tuple(_ROLES),
)
def outside_names_are_not_found(bench: Bench, service: str) -> str:
    # The name cannot exist (RFC 6761), and a closed lab has no server to ask.
    result = _run(bench, service, _TIMED_LOOKUP)
    name, _, took = result.stdout.strip().rpartition("\n")
    expect(took, result.stderr.strip())
    # getent(1): 2 means “not found”; any other code means that the look-up itself failed.
    expect(result.code == 2 and float(took) < 4, f"code {result.code} after {float(took):.1f} s: {name}")
    return f"not found, after {float(took):.1f} s"


@family("loopback", "ports are published on 127.0.0.1 alone", "docs/decisions.md, closed")
def ports_are_published_on_loopback(bench: Bench) -> str:
    published = bench.engine.published(list(map(bench.container, _ROLES.values())))
    others = [binding for binding in published if not binding.startswith("127.0.0.1:")]
    expect(published, "no port is published")
    expect(not others, f"published on other addresses: {', '.join(others)}")
    return f"{len(published)} ports, all on 127.0.0.1"
