"""The two models of the theory compared: store and forward, and end to end."""

from __future__ import annotations

from mailstack.actions import sending
from mailstack.checks.judging import expect
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.machines import expect_sent
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Steps
from mailstack.model import STUDENT
from mailstack.report.figures.path import Leg, legs
from mailstack.trace.journey import Journey

steps = Steps()

# No address of the lab, since a client that sends as one of those must authenticate.
STRANGER = f"{STUDENT}@campus.example"


@steps(
    "store-and-forward",
    "Store and forward: each hop keeps the mail until the next one has it",
    row="Store and forward: mail is kept at each station until it has been copied to the next.",
    done="Followed the first mail through the logs of all hops, by the engine's own clock.",
    expected="The student's Postfix removed the mail from its queue after the provider's had confirmed that it was "
    "queued there, and the provider's after Dovecot had confirmed that it was saved.",
    needs=("arrive",),
)
def hops_store_and_forward(scene: Scene, show: Evidence) -> None:
    journey = scene.keep("store-and-forward", scene.journey(scene.first_mail))
    show.journey("the first mail, hop by hop", journey.json())
    hops = [hop for hop in journey.hops if not hop.notice]
    saved = [event.at for event in journey.events if event.kind == "saved"]
    rows = [(hop.service, hop.arrived, hop.left) for hop in hops] + [("dovecot", saved[-1] if saved else None, None)]
    show.table(
        "how long each hop kept it",
        ("hop", "from", "until"),
        [(name, _milliseconds(journey, arrived), _milliseconds(journey, left)) for name, arrived, left in rows],
    )
    expect([hop.service for hop in hops] == ["sender", "postfix"], f"the hops are {[hop.service for hop in hops]}")
    problem = forwarding_violation(journey)
    expect(not problem, problem)


def forwarding_violation(journey: Journey) -> str:
    """Return why a mail was not stored and forwarded (`postfix still has it`); "" if it was.

    Each hop is judged by the order of lines in its own log: before it removes the mail, the next hop must have
    confirmed it with its own id for the mail. The times of two containers' logs are too coarse for that on a busy
    machine.
    """
    sender, postfix = (
        {each.kind: each for each in journey.events if each.service == service} for service in ("sender", "postfix")
    )
    saved = next((each for each in journey.events if each.kind == "saved"), None)
    for name, events, next_id in (
        ("sender", sender, postfix["named"].queue_id if "named" in postfix else ""),
        ("postfix", postfix, saved.session if saved else ""),
    ):
        sent, removed = events.get("attempt"), events.get("removed")
        if removed is None:
            return f"{name} still has it"
        if sent is None or sent.status != "sent" or not next_id or next_id not in (sent.next_id, sent.session):
            return f"{name} got no confirmation from the next hop"
        if journey.events.index(sent) > journey.events.index(removed):
            return f"{name} removed it before the next hop had it"
    return ""


def _milliseconds(journey: Journey, at: float | None) -> str:
    since = journey.since(at)
    return "-" if since is None else f"{since:.1f} ms"


@steps(
    "end-to-end",
    "End to end: the sending MTA contacts the destination's host directly",
    row="End to end: the sending MTA contacts the destination's host directly.",
    done=f"Sent a mail as {STRANGER} from the student's machine straight to port 25 of the host that serves the "
    "recipient's domain, without the relay and without credentials.",
    expected="It arrived once, over port 25, without authentication; for comparison, the first mail went through the "
    "relay, over port 587, with authentication.",
    needs=("arrive",),
)
def sender_contacts_the_destination(scene: Scene, show: Evidence) -> None:
    message_id = scene.new_id(STRANGER, "direct")
    letter = sending.Letter(STRANGER, (scene.recipient,), "End to end", "This mail went straight to port 25.")
    sending.from_sender(scene.lab, letter, message_id, route="direct")
    expect_sent(scene.lines("sender", message_id, "status="))
    copies = scene.arrived(scene.recipient, message_id)
    journey = scene.keep("end-to-end", scene.journey(message_id))
    show.journey("the mail, hop by hop", journey.json())
    ways = {"end to end": journey, "store and forward": scene.journey(scene.first_mail)}
    contacts = {model: first_leg(way) for model, way in ways.items()}
    show.table(
        "the two models",
        ("", *ways),
        [
            ("contacted", *(each.target for each in contacts.values())),
            ("port", *(each.port for each in contacts.values())),
            ("encrypted", *(each.tls or "no" for each in contacts.values())),
            ("authenticated as", *(each.sasl_user or "nobody" for each in contacts.values())),
            ("the answer", *(each.reply for each in contacts.values())),
            ("outcome", *(each.sentence() for each in ways.values())),
        ],
    )
    domain = scene.recipient.partition("@")[2]
    served = scene.settings("postfix")["virtual_mailbox_domains"].split()
    expect(domain in served, f"the host that was contacted does not serve {domain}, but {', '.join(served)}")
    expect(len(copies) == 1, f"{len(copies)} copies")
    direct, relayed = contacts["end to end"], contacts["store and forward"]
    expect((direct.target, direct.port) == ("postfix", 25), f"it went to port {direct.port} of {direct.target}")
    expect(not direct.sasl_user, f"{direct.sasl_user} was authenticated")
    expect(
        relayed.port in (587, 465) and relayed.sasl_user,
        "the first mail did not go through the relay with authentication",
    )


def first_leg(journey: Journey) -> Leg:
    """Return the leg that begins at the student's Postfix. Raises Unmet when there is none."""
    found = [leg for leg in legs(journey.json()) if leg.origin == "sender"]
    expect(found, "the student's Postfix contacted no host")
    return found[0]
