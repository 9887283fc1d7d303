"""Until a mailbox has news. Works on a box that `imap` opened.

IDLE (RFC 2177) is the event for that, but Dovecot gathers changes for half a second before it tells of them
(NOTIFY_DELAY_MSECS in its index-mailbox-check.c). So whoever waits asks by NOOP at first, which is answered from the
mailbox as it is: after a millisecond, and later after each eighth more of the time that was waited. When that would be
longer than Dovecot gathers for, IDLE is the sooner one.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from mailstack.model import Deadline

if TYPE_CHECKING:
    from imap_tools import BaseMailBox

# A server may end an IDLE after 30 minutes; it is begun again before (RFC 2177).
IDLE_SECONDS = 25 * 60.0

_SHORTEST = 0.001  # seconds
_GATHERED = 0.5  # seconds: NOTIFY_DELAY_MSECS
_SHARE = 8


def pause(waited: float) -> float | None:
    """How long not to ask who has waited for so long (both in seconds); None when IDLE is sooner."""
    share = waited / _SHARE
    return max(_SHORTEST, share) if share < _GATHERED else None


def refresh(box: BaseMailBox) -> None:
    """What is looked at next is the mailbox with every mail that has come until now, and these are no news any more.

    Asks the server, unless it has told of new mails since the last time.
    """
    if not _told(box):
        box.client.noop()
    box.client.response("EXISTS")


def wait(box: BaseMailBox, deadline: Deadline) -> None:
    """Until mails have come since `refresh`, or the deadline has passed; returns too often rather than too late."""
    begun = time.monotonic()
    while not _told(box) and not deadline.passed():
        seconds = pause(time.monotonic() - begun)
        if seconds is None:
            idle(box, min(deadline.remaining(), IDLE_SECONDS))
            return
        select.select([box.client.sock], [], [], min(deadline.remaining(), seconds))  # a server that ends says BYE
        box.client.noop()


def idle(box: BaseMailBox, seconds: float) -> None:
    """Until the server says something, or for so long."""
    box.idle.start()  # type: ignore[no-untyped-call]
    client = box.client
    before = client.sock.gettimeout()
    client.sock.settimeout(0)
    try:
        heard = bool(client._get_line())  # what came together with the answer to IDLE, and waits in the buffer
    except OSError:
        heard = False
    finally:
        client.sock.settimeout(before)
    if not heard:
        box.idle.poll(timeout=seconds)
    box.idle.stop()  # type: ignore[no-untyped-call]


def _told(box: BaseMailBox) -> bool:
    """Whether the server has said how many mails there are: it does when there are more (RFC 3501, section 7.3.1)."""
    return "EXISTS" in box.client.untagged_responses
