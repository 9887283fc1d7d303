"""Waiting for new mail in a mailbox, on a box that `imap` opened.

IDLE (RFC 2177) reports new mail, but Dovecot delays each report by half a second to combine changes (NOTIFY_DELAY_MSECS
in its index-mailbox-check.c). NOOP reports the current state of the mailbox at once. So a wait begins with NOOP: the
first after a millisecond, later ones after an eighth of the time waited so far. Once this pause is as long as Dovecot's
delay, IDLE is faster.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from mailstack.model import Deadline

if TYPE_CHECKING:
    from imap_tools import BaseMailBox

# A server may end an IDLE after 30 minutes, so the client starts a new one before (RFC 2177).
IDLE_SECONDS = 25 * 60.0

_SHORTEST_PAUSE = 0.001  # seconds
_NOTIFY_DELAY = 0.5  # seconds: NOTIFY_DELAY_MSECS
_SHARE = 8


def pause(waited: float) -> float | None:
    """Return the pause before the next NOOP after a wait of `waited` (both in seconds); None when IDLE is faster."""
    share = waited / _SHARE
    return max(_SHORTEST_PAUSE, share) if share < _NOTIFY_DELAY else None


def refresh(box: BaseMailBox) -> None:
    """Bring the client's view of the mailbox up to date, and mark its mails as known to `wait`.

    Asks the server, unless it has reported new mails since the last call.
    """
    if not _has_news(box):
        box.client.noop()
    box.client.response("EXISTS")


def wait(box: BaseMailBox, deadline: Deadline) -> None:
    """Wait until mails have arrived since `refresh`, or the deadline has passed. May return early, never late."""
    started = time.monotonic()
    while not _has_news(box) and not deadline.passed():
        seconds = pause(time.monotonic() - started)
        if seconds is None:
            idle(box, min(deadline.remaining(), IDLE_SECONDS))
            return
        select.select([box.client.sock], [], [], min(deadline.remaining(), seconds))  # a server that ends sends BYE
        box.client.noop()


def idle(box: BaseMailBox, seconds: float) -> None:
    """Wait for data from the server, at most `seconds`."""
    box.idle.start()  # type: ignore[no-untyped-call]
    client = box.client
    before = client.sock.gettimeout()
    client.sock.settimeout(0)
    try:
        received = bool(client._get_line())  # data that came with the reply to IDLE is in the buffer
    except OSError:
        received = False
    finally:
        client.sock.settimeout(before)
    if not received:
        box.idle.poll(timeout=seconds)
    box.idle.stop()  # type: ignore[no-untyped-call]


def _has_news(box: BaseMailBox) -> bool:
    """Whether the server has reported the number of mails, as it does when it grows (RFC 3501, section 7.3.1)."""
    return "EXISTS" in box.client.untagged_responses
