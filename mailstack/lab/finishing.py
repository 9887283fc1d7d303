"""Finish or undo what was interrupted in a lab, before another command changes it."""

from __future__ import annotations

import contextlib

from mailstack import state
from mailstack.errors import MailstackError
from mailstack.lab import changes, healing
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline, Progress


def finish(lab: RunningLab, progress: Progress) -> None:
    """Finish or undo what was interrupted, before another command changes the lab. Does not hold the lab's lock.

    Raises what `up` raises when servers are concerned: it restarts them. Errors about accounts alone are ignored, since
    they do not concern this command.
    """
    left = changes.unfinished(lab.directory.path)
    if any(change.servers for change in left):
        from mailstack.lab import up

        up.up(lab.engine, up.Request.of(lab.state), progress)
    elif left:
        waiting = lambda: progress("waiting for another command on this lab")  # noqa: E731
        with contextlib.suppress(MailstackError), lab.directory.locked(Deadline.after(state.LOCK_SECONDS), waiting):
            left = changes.unfinished(lab.directory.path)
            dropped = healing.drop_accounts(lab.directory, healing.accounts_of(lab, left))
            lab.target.hand_over(lab.directory.files, dropped)
            healing.clean_up(lab, left)
