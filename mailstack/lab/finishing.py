"""Finish or undo what was interrupted in a lab, before another command changes it."""

from __future__ import annotations

import contextlib

from mailstack.errors import LabFileError, MailstackError
from mailstack.lab import changes, healing
from mailstack.lab.running import RunningLab
from mailstack.model import Progress


def finish(lab: RunningLab, progress: Progress) -> None:
    """Finish or undo interrupted changes, before another command changes the lab. The caller must not hold its lock.

    A change that concerned servers needs an `up`, which restarts them: raises what `up` raises. For accounts and
    proofs, errors are ignored: the next command tries again.
    """
    left = changes.unfinished(lab.directory.path)
    if any(change.servers for change in left):
        from mailstack.lab import up

        try:
            up.up(lab.engine, up.Request.of(lab.state), progress)
        except LabFileError as error:
            repair = lab.line("up", "-f", "FILE")
            error.remedy = f"{left[0].sentence()}: put the file right, or name the lab's files anew: {repair}"
            raise
    elif left:
        with contextlib.suppress(MailstackError), lab.locked(progress):
            left = changes.unfinished(lab.directory.path)
            dropped = healing.drop_accounts(lab.directory, healing.accounts_of(lab, left))
            lab.target.hand_over(lab.directory.files, dropped)
            healing.clean_up(lab, left)
