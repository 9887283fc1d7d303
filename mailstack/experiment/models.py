"""The two models of the theory, side by side: store and forward, and end to end."""

from __future__ import annotations

import re
from email.utils import make_msgid

from mailstack import post
from mailstack.experiment.evidence import Evidence, expect
from mailstack.experiment.scene import Scene, lines_of
from mailstack.experiment.step import Steps

steps = Steps()

# Not of the lab: who hands over a mail for one of its own addresses has to authenticate.
STRANGER = f"{post.STUDENT}@campus.example"


@steps(
    "store-and-forward",
    "Store and forward: each station keeps the mail until the next one has it",
    row="Store and forward: mail is kept at each station until it has been copied to the next.",
    done="Laid the logs of the two MTAs side by side, by the engine's own clock, for the first mail.",
    expected="The student's Postfix removed the mail from its queue after the provider had said that it has queued it, "
    "and the provider's after Dovecot had said that it has saved it.",
    needs=("arrive",),
)
def _(scene: Scene, show: Evidence) -> None:
    for service in ("sender", "postfix"):
        scene.lines(service, scene.first_mail, "removed")
    seen = timeline(scene.logs("sender", "postfix"), scene.first_mail)
    show.table("station by station", ("time", "station", "what it logged"), seen)
    texts = [f"{service} {line}" for _, service, line in seen]
    wanted = (
        ("sender took it into its queue", r"^sender .*/cleanup\[.*message-id="),
        ("postfix took it into its queue", r"^postfix .*/cleanup\[.*message-id="),
        ("sender was told that postfix has it", r"^sender .*status=sent \(250 .*queued as "),
        ("sender removed it", r"^sender .*: removed$"),
    )
    at = {what: next((n for n, t in enumerate(texts) if re.search(pattern, t)), None) for what, pattern in wanted}
    missing = [what for what, position in at.items() if position is None]
    expect(not missing, f"not in the logs: {', '.join(missing)}")
    expect(in_order([at[what] for what, _ in wanted]), "sender did not keep the mail until postfix had it")
    saved = [n for n, text in enumerate(texts) if re.search(r"^postfix .*/lmtp\[.*status=sent \(250 ", text)]
    removed = [n for n, text in enumerate(texts) if re.search(r"^postfix .*: removed$", text)]
    expect(saved, "not in the logs: dovecot saved it")
    expect(removed and saved[-1] < removed[-1], "postfix did not keep the mail until dovecot had it")


def timeline(logs: dict[str, str], message_id: str) -> list[tuple[str, str, str]]:
    """(time, service, line) of a mail in several Postfixes' logs, which begin with the engine's time, in order."""
    found = []
    for service, log in logs.items():
        for line in lines_of(log, message_id):
            moment, _, rest = line.partition(" ")
            # Postfix's own time is in seconds, and behind it stands the host's name.
            found.append((moment.partition("T")[2][:15], service, rest.split(" ", 4)[-1]))
    return sorted(found, key=lambda each: each[0])


def in_order(positions: list[int | None]) -> bool:
    """Whether each comes after the one before it."""
    known = [position for position in positions if position is not None]
    return known == sorted(set(known))


@steps(
    "end-to-end",
    "End to end: the sending MTA contacts the destination's host directly",
    row="End to end: the sending MTA contacts the destination's host directly.",
    done=f"Sent a mail as {STRANGER} from the student's machine straight to port 25 of the host that serves the "
    "recipient's domain, without the relay and without credentials.",
    expected="It arrived once, over port 25, with nobody authenticated; beside it the first mail, which went by the "
    "relay, over port 587 and authenticated.",
    needs=("arrive",),
)
def _(scene: Scene, show: Evidence) -> None:
    message_id = make_msgid("direct", domain="campus.example")
    letter = post.Letter(STRANGER, (scene.recipient,), "End to end", "This mail went straight to port 25.")
    post.from_sender(scene.lab, letter, message_id, route="direct")
    direct = scene.lines("sender", message_id, "status=")
    show.text("what the student's Postfix logged", "\n".join(direct))
    outcome = next(line for line in direct if "status=" in line)
    expect("status=sent" in outcome, f"not sent: {outcome.partition('status=')[2]}")
    copies = scene.arrived(scene.recipient, message_id)
    ways = {
        "end to end": way(direct, scene.lines("postfix", message_id, "client=")),
        "store and forward": way(
            scene.lines("sender", scene.first_mail, "status="), scene.lines("postfix", scene.first_mail, "client=")
        ),
    }
    show.table(
        "the two models",
        ("", *ways),
        [(what, *(each[what] for each in ways.values())) for what in ways["end to end"]],
    )
    domain = scene.recipient.partition("@")[2]
    served = scene.settings("postfix")["virtual_mailbox_domains"].split()
    expect(domain in served, f"the host that was contacted does not serve {domain}, but {', '.join(served)}")
    expect(len(copies) == 1, f"{len(copies)} copies")
    expect(ways["end to end"]["port"] == "25", f"it went to port {ways['end to end']['port']}")
    expect(ways["end to end"]["authenticated as"] == "nobody", "somebody was authenticated")
    expect(ways["store and forward"]["port"] == "587", "the first mail did not go by the relay")
    expect(ways["store and forward"]["authenticated as"] != "nobody", "the first mail came without authentication")


def way(sender: list[str], provider: list[str]) -> dict[str, str]:
    """How a mail left the one MTA and came to the other, by the lines of both."""
    sent = " ".join(line for line in sender if "status=sent" in line)
    came = next((line for line in provider if "client=" in line), "")
    relay = re.search(r"relay=([^\[]+)\[[^]]+\]:(\d+)", sent)
    user = re.search(r"sasl_username=(\S+)", came)
    service = re.search(r"postfix/(\S+)\[", came)
    return {
        "contacted": relay[1] if relay else "nobody",
        "port": relay[2] if relay else "none",
        "service there": service[1] if service else "none",
        "authenticated as": user[1] if user else "nobody",
        "reply": sent.partition("status=sent (")[2].rstrip(")"),
    }
