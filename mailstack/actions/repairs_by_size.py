"""Repairs that depend on sizes: a mail that is larger than a limit, and a mailbox that is full."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass

from mailstack.actions.lab_settings import output, up_line
from mailstack.lab.running import RunningLab
from mailstack.trace.journey import Journey

_TOLD = re.compile(r"message size (\d{1,15}) exceeds")
_KIB = 1024
_STEP = 100 * _KIB  # limits are round numbers
_MARGIN = 4 * _KIB  # for the header fields that each hop adds, and for figures that doveadm rounds


@dataclass(frozen=True, slots=True)
class Quota:
    """A user's quota, and what is used of it; in bytes."""

    user: str
    limit: int
    used: int


def size(journey: Journey) -> int:
    """Return the size of a mail in bytes, as the logs tell it; 0 if they do not."""
    told = [int(found[1]) for event in journey.events if (found := _TOLD.search(event.reply))]
    return max((*told, *(event.size for event in journey.events)), default=0)


def size_limit(journey: Journey, value: str) -> int:
    """Return a limit that lets a mail pass: some more than its size, or twice the present limit `value`."""
    return _round_up(size(journey) or (2 * int(value) if value.isdigit() else 0))


def _round_up(count: int) -> int:
    return -(-(count + _MARGIN) // _STEP) * _STEP


def quota(lab: RunningLab, store: str, user: str) -> Quota | None:
    """Return a user's quota as Dovecot knows it; None without one."""
    listed = output(lab, store, ["doveadm", "quota", "get", "-u", user])
    found = re.search(r"\bSTORAGE +(\d{1,12}) +(\d{1,12})\b", listed or "")
    return Quota(user, int(found[2]) * _KIB, int(found[1]) * _KIB) if found else None


def quota_command(lab: RunningLab, store: str, quota: Quota, size: int) -> tuple[str, bool]:
    """Return the command that makes room for a mail of `size` bytes, and whether it runs on the mail store.

    It removes as many of the oldest mails as needed. If the INBOX has too few, it raises the account's quota; "" if
    that is not in the lab's definition.
    """
    listed = output(
        lab, store, ["doveadm", "-f", "flow", "fetch", "-u", quota.user, "size.virtual", "mailbox", "INBOX"]
    )
    sizes = [int(number) for number in re.findall(r"size\.virtual=(\d{1,15})", listed or "")]
    needed = quota.used + size + _MARGIN - quota.limit
    for count in range(1, len(sizes) + 1):
        if sum(sizes[:count]) >= needed:
            which = "1" if count == 1 else f"1:{count}"
            return f"doveadm expunge -u {shlex.quote(quota.user)} mailbox INBOX {which}", True
    if quota.user not in lab.defined.addresses():
        return "", False
    raised = f"{_round_up(2 * quota.used + 2 * size) // _KIB}K"
    overlay = json.dumps({"x-mailstack": {"accounts": {quota.user: {"quota": raised}}}}, separators=(",", ":"))
    return f"printf %s {shlex.quote(overlay)} > larger-quota.json; {up_line(lab, 'larger-quota.json')}", False
