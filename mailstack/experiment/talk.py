"""The dialogue between two MTAs: requests and numbered replies, each with its meaning."""

from __future__ import annotations

from dataclasses import replace

from mailstack.actions import recording, sending
from mailstack.checks.judging import expect
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.machines import ARRIVAL_SECONDS
from mailstack.experiment.scene import Scene
from mailstack.experiment.step import Steps
from mailstack.model import Deadline
from mailstack.protocol.transcript import Dialogue

steps = Steps()

# The stages of a dialogue, in this order (RFC 5321, RFC 3207, RFC 4954).
STAGES = ("greeting", "tls", "auth", "envelope", "data", "quit")


@steps(
    "dialogue",
    "The dialogue is a series of requests and numbered replies",
    row="The dialogue: a series of requests and numbered replies; a message is a header, an empty line, a body.",
    done="Sent a mail from the student's machine, and recorded the dialogue of its Postfix with the provider's.",
    expected="Greeting, STARTTLS, AUTH, envelope, message and farewell, in this order; each request has a reply, each "
    "reply a known code; and no credential is visible.",
    needs=("credentials",),
)
def dialogue_is_requests_and_replies(scene: Scene, show: Evidence) -> None:
    letter = sending.Letter(scene.student, (scene.recipient,), "The dialogue", "What is said when this mail is sent.")
    letter = replace(letter, mark=scene.mark)
    found = recording.record(scene.lab, letter, "sender", Deadline.after(ARRIVAL_SECONDS))
    document = found.dialogue.json()
    shown = scene.lab.blotter().document(document)
    show.dialogue("the dialogue of the two MTAs", shown)
    scene.dialogue = shown
    expect(not found.refused, f"the provider refused: {'; '.join(found.refused)}")
    problem = smtp_violation(found.dialogue)
    expect(not problem, problem)
    expect(shown == document, "it contains a credential of the lab")


def smtp_violation(dialogue: Dialogue) -> str:
    """Return why a dialogue is not valid SMTP; "" if it is."""
    stages = list(dict.fromkeys(each.step for each in dialogue.exchanges if each.step))
    if missing := [stage for stage in STAGES if stage not in stages]:
        return f"the stage “{missing[0]}” is missing"
    if stages != list(STAGES):
        return f"its stages are in the wrong order: {', '.join(stages)}"
    messages = [each for each in dialogue.exchanges if each.speaker == "client" and "" in each.lines]
    if len(messages) != 1:
        return f"it has {len(messages)} messages with a header, an empty line and a body"
    requests = [each for each in dialogue.exchanges if each.speaker == "client" and each is not messages[0]]
    replies = [each for each in dialogue.exchanges if each.speaker == "server"]
    # The first reply is the greeting. A client that quits need not wait for the last reply, 221 (postconf(5),
    # smtp_skip_quit_response).
    awaited = len(requests) - (replies[-1].code != 221)
    if len(replies) - 1 != awaited:
        return f"{awaited} requests have {len(replies) - 1} replies"
    for each in replies:
        if each.code is None or not each.meaning or not each.source:
            return f"a reply has an unknown code: {each.lines[0]}"
    return ""
