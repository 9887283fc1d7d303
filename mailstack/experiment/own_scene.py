"""A student's own lab as the scene of the experiment: other mails are in it, and it was configured by hand."""

from __future__ import annotations

import re
import secrets

from mailstack.actions import queues
from mailstack.checks.client.facts import Facts
from mailstack.checks.client.observation import Machine
from mailstack.experiment.scene import Scene
from mailstack.lab.running import RunningLab


class OwnScene(Scene):
    """A lab that was up before; the experiment's mails have a mark, by which they are removed at the end."""

    def __init__(self, lab: RunningLab) -> None:
        self.mark = f"experiment-{secrets.token_hex(6)}"
        super().__init__(lab)
        self.facts: Facts = Machine(lab).facts()

    @property
    def login(self) -> str:
        """Return the user in the map that the student has made."""
        return self.facts.login_user.lower()

    def is_verified(self, tls: str) -> bool:
        """Whether the certificate was verified; also at a level that does not insist on it."""
        if self.facts.client_tls in ("verify", "secure"):
            return True  # otherwise Postfix would not have sent the mail
        return self.facts.trusts_provider if not tls else tls.endswith((", verified", ", trusted"))

    def queue(self, service: str) -> list[queues.Entry]:
        """Return the experiment's mails in the queues of a Postfix; the student's own do not matter."""
        named = re.findall(rf"cleanup\[\d+\]: (\w+): message-id=<\S*{self.mark}@", self.log(service))
        return [entry for entry in super().queue(service) if entry.queue_id in named]
