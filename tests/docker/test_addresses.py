"""Every valid address of a lab works everywhere: login, delivery, submission, quota, aliases, removal."""

from __future__ import annotations

import contextlib
import imaplib
import json
import poplib
import secrets
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.actions import sending, tracing
from mailstack.actions.accounts import Accounts
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from mailstack.protocol import imap, smtp, trust
from mailstack.secret import Secret
from mailstack.text.addresses import address_flaw
from tests import forked
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker

SECONDS = 30.0

# RFC 5322, section 3.2.3.
SPECIAL = "!#$%&'*+-/=?^_`{|}~"


def shapes(stem: str) -> list[str]:
    """Return local parts with each allowed character at the start, in the middle and at the end, and some extremes."""
    each = [
        local
        for number, character in enumerate(SPECIAL)
        for local in (
            f"{character}{stem}{number}",
            f"{stem}{character}{number}",
            f"{stem}{number}{character}",
        )
    ]
    every = "".join(character for character in SPECIAL if not address_flaw(f"x{character}@example.com"))
    extremes = [
        *(f"{stem}{every}", f"o'brien-{stem}", f"{stem}.b.c-d_e", f"${stem}", f"{stem}$user", "`id`$$" + stem),
        *(f"{stem}{'l' * (64 - len(stem))}", f"{stem}-mailer-daemon", f"~{stem}", f"{stem}.{every}.x"),
    ]
    return [local for local in [*each, *extremes] if not address_flaw(f"{local}@example.com")]


DOMAINS = ("example.com", "xn--bcher-kva.test", "1.test", "a--b.c-d.test", f"{'d' * 63}.{'e' * 63}.{'f' * 61}")
DEFINED = [f"{local}@example.com" for local in shapes("d")]
ADDED = [f"{local}@example.com" for number, local in enumerate(shapes("n")) if number % 3 == 1 or "`" in local]
ELSEWHERE = [f"it's@{domain}" for domain in DOMAINS[1:]]
CATCH_ALL = "catch'`all`@1.test"


def definition() -> dict[str, object]:
    """Return the overlay: an account and an alias of each shape; each alias leads to the account of the same shape."""
    aliases = {f"{local}@1.test": [f"{shapes('d')[number]}@example.com"] for number, local in enumerate(shapes("a"))}
    block = {
        "domains": {domain: {} for domain in DOMAINS[1:]} | {"1.test": {"catch_all": CATCH_ALL}},
        "accounts": {address: {"quota": "5M"} for address in [*DEFINED, *ELSEWHERE, CATCH_ALL]},
        "aliases": aliases,
    }
    # Compose reads $ in values, not in keys, as the beginning of a variable.
    values = json.loads(json.dumps(block["aliases"]).replace("$", "$$"))
    block["aliases"] = {name.replace("$$", "$"): targets for name, targets in values.items()}
    block["domains"] = json.loads(json.dumps(block["domains"]).replace("$", "$$"))
    return {"x-mailstack": block}


@pytest.fixture(scope="module")
def lab(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    """Return a lab with all addresses, some in the definition and some added."""
    overlay = tmp_path_factory.mktemp("addresses") / "addresses.yaml"
    overlay.write_text(json.dumps(definition()))
    with labs.one("addresses", [overlay]) as made:
        with Accounts(made) as accounts:
            accounts.add_several(ADDED)
            made.temporary.end()
        yield made


def every(lab: RunningLab) -> list[str]:
    """Return all accounts that this module tests."""
    return [*DEFINED, *ADDED, *ELSEWHERE, CATCH_ALL]


@contextlib.contextmanager
def inbox(lab: RunningLab, user: str, password: Secret) -> Iterator[imaplib.IMAP4_SSL]:
    """Open a mailbox with the standard library, as users' programs do: the name is an atom."""
    endpoint = lab.endpoints["imaps"]
    with imaplib.IMAP4_SSL(endpoint.host, endpoint.port, ssl_context=trust.tls_context(lab.ca_file)) as session:
        session.login(user, password.reveal())
        session.select()
        yield session


def awaited(lab: RunningLab, sent: dict[str, list[str]]) -> list[str]:
    """Return `ADDRESS: MARK` for each mark that is not in a mailbox in time."""
    deadline = Deadline.after(SECONDS)
    missing = []
    for address, marks in sent.items():
        with imap.mailbox(
            lab.endpoints["imaps"], trust.tls_context(lab.ca_file), address, lab.password(address)
        ) as box:
            for mark in marks:
                try:
                    imap.wait_for(box, f"<{mark}@test>", deadline)
                except Exception as error:
                    missing.append(f"{address}: {mark}: {error}")
    return missing


def letter(sender: str, recipient: str, mark: str) -> bytes:
    """Return a mail with a unique Message-ID."""
    head = f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: {mark}\r\nMessage-ID: <{mark}@test>\r\n"
    return f"{head}\r\nhello\r\n".encode()


def test_the_shapes_have_every_character_that_is_allowed() -> None:
    allowed = {c for c in SPECIAL if any(not address_flaw(f"{local}@a.test") for local in (f"{c}x", f"x{c}x", f"x{c}"))}
    assert allowed == set("#$&'*-=?^_`|}~")
    assert allowed <= set("".join(DEFINED)) and allowed <= set("".join(ADDED))
    assert len(DEFINED) > 40 and len(ADDED) > 15


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_each_account_submits_as_itself_to_itself(lab: RunningLab, mechanism: str) -> None:
    sent: dict[str, list[str]] = {}
    wrong = []
    context = trust.tls_context(lab.ca_file)
    for address in every(lab):
        mark = secrets.token_hex(8)
        with smtp.Smtp(
            smtp.dial_to(lab.endpoints["submission"]), name="localhost", tls="starttls", context=context
        ) as session:
            session.ehlo()
            session.user, session.password = address, lab.password(address).reveal()
            try:
                session.auth(mechanism, getattr(session, f"auth_{mechanism.lower()}"))
                session.sendmail(address, [address.upper()], letter(address, address, mark))
                sent[address] = [mark]
            except smtplib.SMTPException as error:
                wrong.append(f"{address}: {error}")
    assert wrong == []
    assert awaited(lab, sent) == []


def test_each_account_gets_mail_from_outside_with_and_without_a_detail_and_nobody_may_forge_it(lab: RunningLab) -> None:
    sent: dict[str, list[str]] = {}
    wrong = []
    with smtp.Smtp(smtp.dial_to(lab.endpoints["smtp"]), name="localhost") as session:
        session.ehlo()
        for address in every(lab):
            local, _, domain = address.partition("@")
            for recipient in (address, f"{local}+more@{domain}" if len(local) < 60 else address):
                mark = secrets.token_hex(8)
                try:
                    session.sendmail("someone@outside.test", [recipient], letter("someone@outside.test", address, mark))
                    sent.setdefault(address, []).append(mark)
                except smtplib.SMTPException as error:
                    wrong.append(f"{recipient}: {error}")
            session.command(f"MAIL FROM:<{address}>")
            code, text = session.command("RCPT TO:<alice@example.com>")
            if code != 553:
                wrong.append(f"forged {address}: {code} {text}")
            session.rset()
    assert wrong == []
    assert awaited(lab, sent) == []


def test_each_account_logs_in_over_imap_and_pop3_in_either_case_and_has_its_quota(lab: RunningLab) -> None:
    wrong = []
    pop3s = lab.endpoints["pop3s"]
    for address in every(lab):
        password = lab.password(address)
        try:
            with inbox(lab, address.upper(), password):
                pass
            with inbox(lab, address, password) as session:
                kind, answer = session.getquotaroot("INBOX")
                limit = b"5120" if address not in ADDED else b"102400"
                if kind != "OK" or limit not in answer[1][0].split()[-1]:
                    wrong.append(f"{address}: quota {answer}")
            post_office = poplib.POP3_SSL(pop3s.host, pop3s.port, context=trust.tls_context(lab.ca_file))
            post_office.user(address)
            post_office.pass_(password.reveal())
            post_office.quit()
        except (imaplib.IMAP4.error, poplib.error_proto) as error:
            wrong.append(f"{address}: {error}")
    assert wrong == []


def test_a_mail_for_each_alias_and_for_nobody_is_delivered(lab: RunningLab) -> None:
    sent: dict[str, list[str]] = {}
    nobody = f"nobody'`s`@{CATCH_ALL.partition('@')[2]}"
    leads = {alias.address: alias.targets[0] for alias in lab.defined.aliases} | {nobody: CATCH_ALL}
    wrong = []
    with smtp.Smtp(smtp.dial_to(lab.endpoints["smtp"]), name="localhost") as session:
        for alias, target in leads.items():
            mark = secrets.token_hex(8)
            try:
                session.sendmail("someone@outside.test", [alias], letter("someone@outside.test", alias, mark))
                sent.setdefault(target, []).append(mark)
            except smtplib.SMTPException as error:
                wrong.append(f"{alias}: {error}")
    assert wrong == []
    assert awaited(lab, sent) == []


def test_each_account_is_written_to_and_writes_from_the_sender_s_machine(lab: RunningLab) -> None:
    """`mail -s` takes every one of them for an address: for no file, no option and no program."""
    sent: dict[str, list[str]] = {}
    people = every(lab)
    for first in range(0, len(people), 12):  # a program in the container takes a tenth of a second
        some = people[first : first + 12]
        for sender in (some[0], some[-1]):
            mark = secrets.token_hex(8)
            sending.from_sender(lab, sending.Letter(sender, tuple(some), mark, "hello"), f"<{mark}@test>")
            for address in some:
                sent.setdefault(address, []).append(mark)
    assert awaited(lab, sent) == []


def test_the_journey_of_a_mail_to_each_is_found_by_its_address(lab: RunningLab) -> None:
    with smtp.Smtp(smtp.dial_to(lab.endpoints["smtp"]), name="localhost") as session:
        session.sendmail("someone@outside.test", every(lab), letter("someone@outside.test", "all", "to-all"))
    assert awaited(lab, {address: ["to-all"] for address in every(lab)}) == []
    (journey,) = tracing.of_lab(lab, "to-all@test")
    recipients = {each["address"] for each in journey.json(0)["recipients"]}
    assert recipients == set(every(lab))
    for address in DEFINED[::8]:
        assert tracing.of_lab(lab, address), address


def run(*words: str) -> str:
    """Run `mailstack WORDS`; return its answer."""
    done = forked.run_text(words)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def test_commands_take_an_account_with_odd_characters_and_a_shell_reads_its_variables(lab: RunningLab) -> None:
    address = DEFINED[-1]
    assert "'" in address and "`" in address and "$" in address
    script = f'{run("env", "-n", lab.name, "--account", address)}\nprintf %s "$IMAP_USER"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == address
    run("send", "-n", lab.name, "--from", address, "--to", address, "--subject", "to myself")
    assert "to myself" in run("inbox", "-n", lab.name, address)
    assert address in run("read", "-n", lab.name, address)
    assert lab.password(address).reveal() in run("secrets", "reveal", "-n", lab.name, address)
    assert address in run("account", "list", "-n", lab.name)


def test_each_added_account_is_removed_with_its_mailbox(lab: RunningLab) -> None:
    with Accounts(lab) as accounts:
        accounts.remove_several(ADDED[1:])
        accounts.remove(ADDED[0])
    assert not set(ADDED) & set(lab.definition().addresses())
    mailboxes = lab.engine.execute(lab.service("dovecot").container, ["ls", "-1", "/srv/mail"]).stdout.splitlines()
    assert not set(ADDED) & set(mailboxes)
    assert set(DEFINED) <= set(mailboxes)
    for first in range(0, len(ADDED), 15):  # after twenty errors Postfix hangs up (postconf(5), smtpd_hard_error_limit)
        with smtp.Smtp(smtp.dial_to(lab.endpoints["smtp"]), name="localhost") as session:
            session.ehlo()
            session.command("MAIL FROM:<someone@outside.test>")
            for address in ADDED[first : first + 15]:
                assert session.command(f"RCPT TO:<{address}>")[0] == 550, address


@pytest.mark.parametrize("action", ["add", "remove"])
@pytest.mark.parametrize(
    "address",
    [
        *("/tmp/zz@example.com", "../../zz@example.com", "../added@example.com", "..@example.com", "@example.com", ""),
        *("a/b@example.com", "zz@../../tmp", "zz@example.com/..", "zz@example.com\n", ".@example.com"),
        *(
            "a+b@example.com",
            "a!b@example.com",
            "a%b@example.com",
            "{a@example.com",
            "#a@example.com",
            "a:b@example.com",
        ),
        *("ä@example.com", "a@exämple.com", '"a b"@example.com', f"{'a' * 65}@example.com", "\u212a@example.com"),
    ],
)
def test_no_name_from_outside_becomes_a_path(lab: RunningLab, action: str, address: str) -> None:
    def there() -> set[str]:
        found = lab.engine.execute(lab.service("dovecot").container, ["find", "/srv/mail", "/tmp", "-maxdepth", "1"])
        files = {str(path) for path in lab.directory.path.rglob("*")}
        return files | {str(path) for path in Path("/tmp").glob("*zz*")} | set(found.stdout.splitlines())

    before = there()
    done = subprocess.run(
        [sys.executable, "-m", "mailstack", "account", action, "-n", lab.name, "--", address],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert there() == before
