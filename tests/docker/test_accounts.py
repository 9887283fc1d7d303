"""Accounts are added to and removed from a running lab: they work at once, and no server restarts."""

from __future__ import annotations

import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.actions.accounts import Accounts
from mailstack.errors import CheckFailed, InputError
from mailstack.lab.running import RunningLab
from mailstack.message import draft
from mailstack.model import Deadline
from mailstack.protocol import imap, smtp, trust
from mailstack.secret import Secret
from tests import engines
from tests.docker.conftest import Labs
from tests.docker.test_lab import answer, documented, mailstack, shape

pytestmark = pytest.mark.docker

MAILSTACK = str(Path(sys.executable).with_name("mailstack"))


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("accounts") as lab:
        yield lab


@pytest.fixture(scope="module")
def accounts(lab: RunningLab) -> Iterator[Accounts]:
    with Accounts(lab) as accounts:
        yield accounts


def crosses(lab: RunningLab, sender: str, recipient: str) -> None:
    """Check that a mail from one account to another arrives once."""
    context = trust.tls_context(lab.ca_file)
    message = draft.new_message(sender=sender, to=[recipient], subject="crossing", body="…")
    smtp.submit(smtp.dial_to(lab.endpoints["submission"]), context, sender, lab.password(sender), message, [recipient])
    with imap.mailbox(lab.endpoints["imaps"], context, recipient, lab.password(recipient)) as box:
        imap.wait_for(box, str(message["Message-ID"]), Deadline.after(15))
        assert len(imap.find(box, str(message["Message-ID"]))) == 1


@pytest.mark.parametrize("domain", ["example.com", "example.org"], ids=["plain", "with-a-catch-all"])
def test_an_added_account_sends_and_receives_at_once(lab: RunningLab, accounts: Accounts, domain: str) -> None:
    before = [service.container for service in lab.services()]
    for number in range(5):
        address = f"new-{number}@{domain}"
        accounts.add(address, fresh=True)
        crosses(lab, address, address)
        crosses(lab, address, "alice@example.com")
        crosses(lab, "alice@example.com", address)
    assert [service.container for service in lab.services()] == before


def test_an_added_account_is_its_owner_s_alone(lab: RunningLab, accounts: Accounts) -> None:
    accounts.add("owned@example.com")
    with pytest.raises(CheckFailed, match="553"):
        crosses_as(lab, "alice@example.com", "owned@example.com")
    with smtp.Smtp(smtp.dial_to(lab.endpoints["smtp"]), name="postfix") as session:
        session.ehlo()
        session.mail("owned@example.com")
        code, text = session.rcpt("alice@example.com")
    assert code == 553, text
    # The sender's machine sends for all of its users.
    answer("send", "-n", lab.name, "--via", "sender", "--from", "owned@example.com", "--to", "bob@example.com")


def crosses_as(lab: RunningLab, user: str, sender: str) -> None:
    """Submit a mail as one user, with another user's address."""
    message = draft.new_message(sender=sender, to=[user], subject="not mine", body="…")
    context = trust.tls_context(lab.ca_file)
    smtp.submit(
        smtp.dial_to(lab.endpoints["submission"]), context, user, lab.password(user), message, [user], sender=sender
    )


def test_another_password_than_its_own_is_refused(lab: RunningLab, accounts: Accounts) -> None:
    accounts.add("locked@example.com", password=Secret("right"))
    context = trust.tls_context(lab.ca_file)
    with imap.mailbox(lab.endpoints["imaps"], context, "locked@example.com", Secret("right")):
        pass
    with (
        pytest.raises(CheckFailed, match="refused the password"),
        imap.mailbox(lab.endpoints["imaps"], context, "locked@example.com", Secret("wrong")),
    ):
        pass


def test_an_added_account_has_the_quota_that_was_said(lab: RunningLab, accounts: Accounts) -> None:
    accounts.add("small@example.com", quota=2048)
    context = trust.tls_context(lab.ca_file)
    with imap.mailbox(lab.endpoints["imaps"], context, "small@example.com", lab.password("small@example.com")) as box:
        _, (line, *_) = box.client.getquotaroot("INBOX")[1]
    assert b"(STORAGE 0 2)" in line, line


def test_an_account_that_is_removed_takes_no_mail_and_no_password(lab: RunningLab, accounts: Accounts) -> None:
    password = accounts.add("gone@example.com")
    crosses(lab, "alice@example.com", "gone@example.com")
    accounts.remove("gone@example.com")
    message = draft.new_message(sender="alice@example.com", to=["gone@example.com"], subject="x", body="x")
    context = trust.tls_context(lab.ca_file)
    with smtp.Smtp(
        smtp.dial_to(lab.endpoints["submission"]), name="localhost", tls="starttls", context=context
    ) as session:
        session.login("alice@example.com", lab.password("alice@example.com").reveal())
        with pytest.raises(smtplib.SMTPRecipientsRefused, match=r"5\.1\.1"):
            session.send_message(message)
    with (
        pytest.raises(CheckFailed, match="refused the password"),
        imap.mailbox(lab.endpoints["imaps"], context, "gone@example.com", password),
    ):
        pass
    # Whoever gets the address again finds an empty mailbox.
    again = accounts.add("gone@example.com")
    with imap.mailbox(lab.endpoints["imaps"], context, "gone@example.com", again) as box:
        assert box.uids() == []


def test_added_accounts_outlive_the_containers_and_a_changed_definition(labs: Labs, tmp_path: Path) -> None:
    overlay = tmp_path / "more.yaml"
    overlay.write_text("x-mailstack: {limits: {message_size: 5M}}\n")
    with labs.one("outlive") as lab:
        with Accounts(lab) as accounts:
            accounts.add("stays@example.com")
        labs.up(lab.name, [overlay])
        crosses(lab, "alice@example.com", "stays@example.com")
        assert "stays@example.com" in RunningLab(lab.name, engines.here()).definition().addresses()


def test_many_accounts_come_and_go_at_once(lab: RunningLab, accounts: Accounts) -> None:
    """More than Postfix is told of in one line."""
    many = [f"many-{number}@example.com" for number in range(250)]
    accounts.add_several(many)
    table = lab.engine.execute(lab.service("postfix").container, ["postmap", "-s", "lmdb:/etc/postfix/added"]).stdout
    assert {f"{address}\t{address}" for address in many} <= set(table.splitlines())
    for address in (many[0], many[-1]):
        crosses(lab, address, address)
    accounts.remove_several(many)
    table = lab.engine.execute(lab.service("postfix").container, ["postmap", "-s", "lmdb:/etc/postfix/added"]).stdout
    assert "many-" not in table
    mails = lab.engine.execute(lab.service("dovecot").container, ["ls", "/srv/mail"]).stdout
    assert "many-" not in mails


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("alice@example.com", "is already an account of lab"),
        ("team@example.com", "is an alias of lab"),
        ("dora@elsewhere.example", "in none of the lab's domains"),
        ("dora+x@example.com", "cannot be an account's address"),
        ("../dora@example.com", "cannot be an account's address"),
        ("do ra@example.com", "cannot be an account's address"),
        (f"{'d' * 65}@example.com", "cannot be an account's address"),
        ("dora", "cannot be an account's address"),
        ("", "cannot be an account's address"),
    ],
)
def test_what_cannot_be_an_account_is_said(lab: RunningLab, accounts: Accounts, address: str, says: str) -> None:
    before = accounts.added()
    with pytest.raises(InputError, match=says):
        accounts.add(address)
    assert accounts.added() == before


def test_only_what_was_added_can_be_removed(accounts: Accounts) -> None:
    with pytest.raises(InputError, match="definition"):
        accounts.remove("alice@example.com")
    with pytest.raises(InputError, match="is not an account"):
        accounts.remove("nobody@example.com")


def test_the_command_adds_lists_and_removes(lab: RunningLab) -> None:
    assert answer("account", "add", "-n", lab.name, "Cli@example.com", "--quota", "5M") == {
        "lab": lab.name,
        "address": "cli@example.com",
        "quota": 5 * 1024**2,
    }
    listed = answer("account", "list", "-n", lab.name)
    assert shape(listed["accounts"][-1], documented_account()) == [] or listed["accounts"][-1]["quota"] is None
    assert {"address": "cli@example.com", "quota": 5 * 1024**2, "added": True} in listed["accounts"]
    assert {"address": "alice@example.com", "quota": None, "added": False} in listed["accounts"]
    shown = mailstack("account", "list", "-n", lab.name)
    password = mailstack("secrets", "reveal", "-n", lab.name, "cli@example.com").strip()
    assert "cli@example.com" in shown and password not in shown and max(map(len, shown.splitlines())) <= 80
    mailstack("send", "-n", lab.name, "--to", "cli@example.com")
    assert len(answer("inbox", "-n", lab.name, "cli@example.com")["mails"]) == 1
    mailstack("account", "remove", "-n", lab.name, "cli@example.com")
    assert "cli@example.com" not in mailstack("account", "list", "-n", lab.name)


def documented_account() -> object:
    return documented("account …")["accounts"][0]


def test_a_quota_that_is_none_is_said(lab: RunningLab) -> None:
    words = [MAILSTACK, "account", "add", "-n", lab.name, "quota@example.com", "--quota", "much"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "is not a size" in result.stderr


def test_no_password_is_in_a_log_or_an_argument(lab: RunningLab, accounts: Accounts) -> None:
    password = accounts.add("canary@example.com").reveal()
    crosses(lab, "canary@example.com", "canary@example.com")
    for service in lab.services():
        assert password not in lab.engine.logs(service.container)
        processes = lab.engine.execute(service.container, ["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ"])
        assert password not in processes.stdout
