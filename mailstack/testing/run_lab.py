"""The lab of a run of pytest: shared by its workers, and removed with the last of them."""

from __future__ import annotations

import contextlib

from mailstack.engine.engine import Engine
from mailstack.errors import MailstackError
from mailstack.lab import down, homes
from mailstack.lab.leases import Leases, guard
from mailstack.lab.request import Request
from mailstack.lab.running import RunningLab
from mailstack.lab.up import ensure
from mailstack.runner.local import Local
from mailstack.state import LabDirectory


class RunLab:
    """One worker's hold on the lab: `join` brings it up unless another worker does, `leave` may remove it.

    Raises MailstackError when no engine answers.
    """

    def __init__(self, engine: Engine, request: Request, *, keep: bool) -> None:
        self._engine, self._request, self._keep = engine, request, keep
        self._home = homes.current(engine)  # before anything is made: without an engine nothing could be removed
        self._leases = Leases(self._home, request.name)

    def join(self) -> RunningLab:
        """Return the lab, once it is up and proven. Raises MailstackError."""
        name = self._request.name
        self._leases.acquire()
        try:
            if not self._keep:  # removes the lab if this process and the other workers are killed
                guard(self._engine.target, self._home, name, Local())
            ensure(self._engine, self._request, _silent, _warm_up)
            return RunningLab(name, self._engine)
        except BaseException:
            # Interrupted when the lab was just up: leaving without removing it would send the guard away, too. Where
            # nothing was made, or what was made is removed, no engine is asked: it may never have been there.
            made = LabDirectory(self._home, name).is_made()
            with contextlib.suppress(MailstackError):  # the first error is the one to report
                self._leases.release(self._remove if made else lambda: None)
            raise

    def leave(self) -> None:
        """Give up the hold; the last worker removes the lab, unless it is to be kept. Raises MailstackError."""
        self._leases.release(self._remove)

    def _remove(self) -> None:
        if not self._keep:
            down.down(self._engine, self._request.name, _silent)


def _silent(_: str) -> None:
    """Progress is not shown in tests."""


def _warm_up() -> None:
    """Import what tests use while another worker brings the lab up."""
    import email.headerregistry
    import email.policy

    import imap_tools

    import mailstack.actions.accounts
    import mailstack.actions.queue_watch
    import mailstack.testing

    del email, imap_tools, mailstack
