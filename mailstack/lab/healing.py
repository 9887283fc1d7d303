"""Remove what interrupted commands left in a lab: half-added accounts, mails of their own, containers outside it."""

from __future__ import annotations

from collections.abc import Sequence

from mailstack.config import files
from mailstack.engine import projects
from mailstack.errors import HostError
from mailstack.lab import changes
from mailstack.lab.changes import Unfinished
from mailstack.lab.running import RunningLab
from mailstack.roles import Role
from mailstack.state import LabDirectory
from mailstack.text.addresses import address_flaw

_MOST_MAILBOXES = 50  # that are searched for mails of a command to itself: it uses the first accounts, and the last
_SWEEPS = 3  # how often mails of a command are removed, at most
# Deletes the mails with a mark from a queue, and prints their ids. Queue files have Message-IDs in clear.
_SWEEP = """
cd /var/spool/postfix
found=$(grep -lrF -e "$1" maildrop incoming active deferred hold 2>/dev/null | sed 's|.*/||')
[ -z "$found" ] || echo "$found" | postsuper -d - maildrop incoming active deferred hold 2>&1
"""
_MAIL_DIRECTORIES = ("/srv/mail", "/tmp/locks")  # Dovecot's mail_home and mail_volatile_path of an account


def accounts_of(lab: RunningLab, left: Sequence[Unfinished]) -> list[str]:
    """Return the accounts that interrupted commands were adding or removing, except those of the definition."""
    defined = set(lab.defined.addresses())
    named = {address for change in left for address in change.accounts}
    return sorted(address for address in named - defined if not address_flaw(address))


def drop_accounts(directory: LabDirectory, addresses: Sequence[str]) -> list[str]:
    """Remove added accounts from the files; return the names of the files that changed."""
    return files.remove(directory.files, addresses) if addresses else []


def clean_up(lab: RunningLab, left: Sequence[Unfinished]) -> None:
    """Remove what interrupted commands left in a running lab, and their records. Raises MailstackError."""
    if addresses := accounts_of(lab, left):
        words = "".join(f"remove {address}\n" for address in addresses)
        result = lab.engine.execute(lab.one(Role.SUBMISSION).container, ["accounts"], input=words.encode())
        if result.code != 0:
            raise HostError(f"Postfix did not remove {', '.join(addresses)}: {result.stderr.strip()}")
        empty_mailboxes(lab, addresses)
    for mark in filter(None, (change.mark for change in left)):
        remove_mails(lab, mark)
    if any(change.servers for change in left):
        for thing in outside_objects(lab):
            lab.engine.remove(thing)
    changes.strike_out(left)


def empty_mailboxes(lab: RunningLab, addresses: Sequence[str]) -> None:
    """Remove the mailboxes of removed accounts. Raises HostError."""
    store = lab.one(Role.STORE).container
    names = "".join(f"{place}/{address}\0" for address in addresses for place in _MAIL_DIRECTORIES)
    result = lab.engine.execute(store, ["xargs", "-0", "rm", "-rf", "--"], input=names.encode())
    if result.code != 0:
        what = "the mailbox of " + (addresses[0] if len(addresses) == 1 else f"{len(addresses)} accounts")
        raise HostError(f"{what} could not be removed: {result.stderr.strip()}")


def remove_mails(lab: RunningLab, mark: str) -> None:
    """Remove the mails whose Message-ID contains `mark`, and their bounces. Raises MailstackError.

    They are removed from the queues, then from the mailboxes that commands use; again if a queue had some, since one of
    them may have been on its way to the next.
    """
    from mailstack.protocol import imap, trust

    context = trust.tls_context(lab.ca_file)
    addresses = lab.defined.addresses()
    for _ in range(_SWEEPS):
        swept = sweep_queues(lab, mark)
        for address in dict.fromkeys((*addresses[:_MOST_MAILBOXES], addresses[-1])):
            with imap.mailbox(lab.endpoints["imaps"], context, address, lab.password(address)) as box:
                box.delete(box.uids(changes.search_key(mark)))
        if not swept:
            return


def sweep_queues(lab: RunningLab, mark: str) -> bool:
    """Remove the mails with `mark`, and their bounces, from all queues; return whether there were any."""
    mtas = sorted(lab.by_role(Role.MTA), key=lambda each: each.role is not Role.SENDER)  # in the direction of mail flow
    swept = [lab.engine.execute(each.container, ["sh", "-c", _SWEEP, "sh", mark]).stdout for each in mtas]
    return any(swept)


def outside_name(lab: str) -> str:
    """Return the name of the container and of the network outside a lab that a check tries to reach from it."""
    return f"{projects.project_name(lab)}-outside"


def outside_objects(lab: RunningLab) -> list[str]:
    """Return the container and the network outside the lab that a check left, the container first."""
    name = outside_name(lab.name)
    return [thing for thing in lab.engine.leftovers(lab.name, lab.state.owner) if thing.split(" ", 1)[1] == name]
