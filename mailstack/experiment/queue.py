"""The queue keeps a mail while the receiver is down. Stops the provider's Postfix, so it runs alone."""

from __future__ import annotations

from mailstack.actions import queues, sending
from mailstack.checks.judging import expect
from mailstack.checks.listeners import wait_until_healthy
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.machines import ARRIVAL_SECONDS
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Steps
from mailstack.lab import readiness
from mailstack.model import Deadline
from mailstack.protocol import imap

steps = Steps()


@steps(
    "queue",
    "While the receiver is down the queue holds the mail, and delivers it once afterwards",
    row="The queue: the MTA keeps a small queue so that it can try again when the receiver is not available.",
    done="Stopped the provider's Postfix, sent a mail, and listed the student's queue; started it again, and flushed "
    "the queue (postqueue -f).",
    expected="The mail is deferred in the student's queue, with its reason, and not in the mailbox; afterwards exactly "
    "one copy is in the mailbox, and the queues are empty.",
    needs=("arrive",),
    alone=True,
)
def queue_keeps_the_mail(scene: Scene, show: Evidence) -> None:
    message_id = scene.new_id(scene.student, "waiting")
    letter = sending.Letter(scene.student, (scene.recipient,), "A mail that waits", "The receiver was not there.")
    provider = scene.container("postfix")
    scene.engine.stop(provider)
    try:
        sending.from_sender(scene.lab, letter, message_id)
        lines = scene.lines("sender", message_id, "status=")
        waiting = scene.queue("sender")
        show.table(
            "the student's queue, while the receiver is down",
            ("queue", "queue id", "recipient", "reason"),
            [(entry.name, entry.queue_id, to.address, to.reason) for entry in waiting for to in entry.recipients],
        )
        reasons = [to.reason for entry in waiting for to in entry.recipients]
        if note := next(filter(None, map(unresolved, reasons)), ""):
            show.text("to know", note)
        expect(any("status=deferred" in line for line in lines), f"it was not deferred: {lines[-1]}")
        mine = [entry for entry in waiting if any(f": {entry.queue_id}: " in line for line in lines)]
        expect(len(mine) == 1 and mine[0].deferred, "it is not in the deferred queue")
        expect(all(each.reason for each in mine[0].recipients), "the queue gives no reason")
        with scene.box(scene.recipient) as box:
            expect(not imap.find(box, message_id), "it is in the mailbox nevertheless")
    finally:
        scene.engine.start(provider)
    deadline = Deadline.after(ARRIVAL_SECONDS)
    healthy = wait_until_healthy(scene.engine, provider, deadline.seconds)
    expect(healthy, f"the provider did not listen within {deadline.seconds:g} s of its start")
    readiness.sender(scene.lab, deadline)
    queues.flush(scene.engine, {"sender": scene.container("sender")})
    scene.arrived(scene.recipient, message_id)
    for service in ("sender", "postfix"):
        scene.lines(service, message_id, "removed")
    show.text("the log of the student's Postfix", "\n".join(scene.lines("sender", message_id, "removed")))
    with scene.box(scene.recipient) as box:
        copies = imap.find(box, message_id)
    left = [entry.queue_id for service in ("sender", "postfix") for entry in scene.queue(service)]
    show.table(
        "afterwards", ("what", "count"), [("copies in the mailbox", len(copies)), ("mails in the queues", len(left))]
    )
    expect(len(copies) == 1, f"{len(copies)} copies")
    expect(not left, f"the queues still have {', '.join(left)}")


def unresolved(reason: str) -> str:
    """Return why the queue names the look-up of a host as its reason, where one expects a refused connection."""
    if "name not found" not in reason and "look up host" not in reason:
        return ""
    return (
        "The reason is about the name of the host, and not “Connection refused”: a stopped container has no name in "
        "the lab's network, so Postfix finds no address to connect to (type=A asks for an IPv4 address, type=AAAA for "
        "an IPv6 address). On the Internet, a machine keeps its name while it is down, and the reason would be "
        "“Connection refused” or “Connection timed out”. In either case, the queue holds the mail."
    )
