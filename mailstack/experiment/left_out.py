"""Steps that are not performed on a student's own lab, each with the reason in words for the student."""

from __future__ import annotations

from mailstack.actions.sending import ROUTE_HEADER
from mailstack.checks.client.facts import Facts

_NOTHING_TO_DO = "You need not do anything about it"
_OWN_LAB = "the experiment without --on shows it in a lab of its own"

_OUTSIDE = (
    "This step would show a student's machine whose provider is on the Internet, and not in the lab. It needs a second "
    "lab in the place of that provider, and --on works on your lab alone. "
    f"{_NOTHING_TO_DO}: {_OWN_LAB}."
)
# They send a mail by a route of its own, which only the lab's own main.cf has.
_ROUTED = {
    "end-to-end": (
        "This step would show the other model of the theory: your Postfix takes a mail straight to port 25 of the "
        "recipient's server, without the provider's submission service. Your main.cf sends every mail to relayhost, as "
        "the course wants it, and --on changes no setting of yours. "
        f"{_NOTHING_TO_DO}: {_OWN_LAB}, beside the model that you have configured."
    ),
    "dialogue": (
        "This step would show each line that your Postfix and the provider's say to each other. For that, a recorder "
        "has to stand between the two, and your main.cf has no rule that leads a mail there: --on changes no setting "
        f"of yours. {_NOTHING_TO_DO}: `DIALOGUE` shows such a dialogue with your lab's provider, and "
        f"{_OWN_LAB}."
    ),
}


def reasons(facts: Facts, dialogue: str) -> dict[str, str]:
    """Return the ids of the steps that cannot be performed on a lab, each with the reason.

    `dialogue` is the command that shows an SMTP dialogue with this lab.
    """
    unrouted = not facts.error and ROUTE_HEADER not in facts.setting("header_checks")
    routed = {id: reason.replace("DIALOGUE", dialogue) for id, reason in _ROUTED.items()}
    return {"outside": _OUTSIDE, **(routed if unrouted else {})}
