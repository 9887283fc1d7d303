"""The user agent on a real lab: mails are listed, watched, read, saved and answered."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.lab.running import RunningLab
from mailstack.protocol import imap, smtp, trust
from tests.docker.agent import (
    ARRIVAL_SECONDS,
    deliver,
    deliver_from_nobody,
    refused,
    uid,
    written,
)
from tests.docker.bad import until
from tests.docker.conftest import Labs
from tests.docker.test_lab import MAILSTACK, answer, documented, mailstack, shape

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("agent") as made:
        yield made


@pytest.fixture
def name(lab: RunningLab) -> str:
    return lab.name


# ── inbox ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_mailbox_says_so(name: str) -> None:
    assert mailstack("inbox", "-n", name, "carol@example.org") == "the mailbox of carol@example.org is empty\n"
    assert answer("inbox", "-n", name, "carol@example.org")["mails"] == []


def test_a_mail_is_listed_with_its_number_its_size_and_its_first_words(name: str) -> None:
    mailstack("send", "-n", name, "--to", "bob@example.com", "--subject", "CCN Lab", "--body", "the first\nwords")
    document = answer("inbox", "-n", name, "bob@example.com")
    assert shape(document, documented("inbox")) == []
    listed = document["mails"][-1]
    assert (listed["subject"], listed["preview"]) == ("CCN Lab", "the first words")
    shown = mailstack("inbox", "-n", name, "bob@example.com").splitlines()
    assert re.fullmatch(rf" +{listed['uid']}  \d{{4}}-\d\d-\d\d \d\d:\d\d  alice@example\.com +\d+ B", shown[-2])
    assert shown[-1] == "        CCN Lab — the first words"
    assert answer("read", "-n", name, "bob@example.com", str(listed["uid"]))["subject"] == "CCN Lab"


def test_the_number_of_a_mail_stays_when_others_go(lab: RunningLab, name: str) -> None:
    sent = [answer("send", "-n", name, "--to", "bob@example.com", "--subject", f"nr {n}") for n in range(2)]
    first, second = (uid(lab, "bob@example.com", each["message_id"]) for each in sent)
    context = trust.tls_context(lab.ca_file)
    with imap.mailbox(lab.endpoints["imaps"], context, "bob@example.com", lab.password("bob@example.com")) as box:
        box.delete([str(first)])
    assert answer("read", "-n", name, "bob@example.com", str(second))["subject"] == "nr 1"
    assert f"no mail with UID {first}" in refused("read", "-n", name, "bob@example.com", str(first), code=2)


# ── inbox --watch ──────────────────────────────────────────────────────────────────────────────────────────────────


class Watch:
    """Runs `mailstack inbox --watch` in the background."""

    def __init__(self, *words: str) -> None:
        self._command = subprocess.Popen(
            [MAILSTACK, "inbox", *words, "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._command.stderr is not None and self._command.stdout is not None
        self.first = self._command.stderr.readline().decode()
        assert "watching the mailbox" in self.first

    def line(self) -> str:
        """Return the next line of its output, as soon as it is printed."""
        assert self._command.stdout is not None
        ready, _, _ = select.select([self._command.stdout], [], [], ARRIVAL_SECONDS)
        assert ready, "nothing came"
        return os.read(self._command.stdout.fileno(), 65536).decode()

    def signal(self, number: int) -> None:
        self._command.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return the exit code, the rest of its output, and its messages."""
        out, err = self._command.communicate(timeout=60)
        return self._command.returncode, out.decode(), err.decode()


def test_new_mails_are_shown_as_they_arrive_until_there_are_enough(name: str) -> None:
    watch = Watch("-n", name, "bob@example.com", "--json", "--count", "2")
    for subject in ("one", "two"):
        mailstack("send", "-n", name, "--to", "bob@example.com", "--subject", subject)
        (line,) = watch.line().splitlines()
        document = json.loads(line)
        assert shape(document, documented("inbox")["mails"][0]) == [] and document["subject"] == subject
    assert watch.end() == (0, "", "")


def test_of_many_mails_at_once_none_is_overlooked(lab: RunningLab, name: str) -> None:
    watch = Watch("-n", name, "bob@example.com", "--json", "--count", "30", "--timeout", "30s")
    context = trust.tls_context(lab.ca_file)
    student = "student@example.com"
    with smtp.Smtp(
        smtp.dial_to(lab.endpoints["submission"]), name="localhost", tls="starttls", context=context
    ) as session:
        session.login(student, lab.password(student).reveal())
        for number in range(30):
            session.send_message(written(f"<many{number}@example.com>"), student, ["bob@example.com"])
    code, out, _ = watch.end()
    came = [json.loads(line)["message_id"] for line in out.splitlines()]
    assert code == 0 and sorted(came) == sorted(f"<many{number}@example.com>" for number in range(30))


def test_a_mail_that_is_there_already_is_not_new(name: str) -> None:
    assert answer("inbox", "-n", name, "bob@example.com")["mails"]
    watch = Watch("-n", name, "bob@example.com", "--timeout", "1s")
    assert watch.end() == (0, "", "")


def test_too_few_mails_in_time_are_a_deadline_that_passed(name: str) -> None:
    watch = Watch("-n", name, "bob@example.com", "--timeout", "1s", "--count", "1")
    code, out, err = watch.end()
    assert (code, out) == (4, "") and "none of 1 mails came to bob@example.com within 1 s" in err


def test_ctrl_c_ends_the_watch(name: str) -> None:
    watch = Watch("-n", name, "bob@example.com")
    watch.signal(signal.SIGINT)
    code, out, err = watch.end()
    assert (code, out) == (130, "") and "interrupted" in err and "Traceback" not in err


def test_nothing_is_asked_while_nothing_comes(lab: RunningLab, name: str) -> None:
    def said() -> list[str]:
        log = lab.engine.logs(lab.service("dovecot").container, since=begun)
        return re.findall(r"imap\(carol@example\.org\).*Logged out in=(\d+)", log)

    begun = time.time()
    for number, seconds in enumerate(("1s", "3s"), 1):
        Watch("-n", name, "carol@example.org", "--timeout", seconds).end()
        assert until(lambda number=number: len(said()) == number)  # type: ignore[misc]
    assert len(set(said())) == 1  # what the client said, in bytes, as Dovecot counted it


def test_count_and_timeout_need_a_watch(name: str) -> None:
    assert "need --watch" in refused("inbox", "-n", name, "bob@example.com", "--count", "1", code=2)


# ── read ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mail_in_html_alone_is_shown_as_text(lab: RunningLab, name: str) -> None:
    made = written("<html@example.com>")
    made.set_content("<style>p{}</style><p>Hello <a href='https://example.com/x'>you</a><script>x()</script>", "html")
    number = deliver(lab, made.as_bytes(), "bob@example.com", "<html@example.com>")
    shown = mailstack("read", "-n", name, "bob@example.com", str(number))
    assert shown.splitlines()[-1] == "Hello you <https://example.com/x>"


def test_an_attached_mail_is_saved_as_it_is(lab: RunningLab, name: str, tmp_path: Path) -> None:
    inner = written("<inner@example.com>", Subject="inside/out")
    made = written("<outer@example.com>", Cc="Alice <alice@example.com>")
    made.add_attachment(inner)
    number = deliver(lab, made.as_bytes(), "bob@example.com", "<outer@example.com>")
    shown = mailstack("read", "-n", name, "bob@example.com", str(number), "--save", str(tmp_path / "new"))
    assert "Cc: Alice <alice@example.com>" in shown and "[attachment: inside/out.eml, message/rfc822" in shown
    assert f"saved as {tmp_path}/new/out.eml" in shown
    assert (tmp_path / "new" / "out.eml").read_bytes().split() == inner.as_bytes().split()


def test_what_is_saved_is_in_the_document(name: str, tmp_path: Path) -> None:
    (tmp_path / "bytes.bin").write_bytes(bytes(range(256)))
    mailstack("send", "-n", name, "--to", "bob@example.com", "--attach", str(tmp_path / "bytes.bin"))
    document = answer("read", "-n", name, "bob@example.com", "--save", str(tmp_path))
    (attachment,) = document["attachments"]
    assert attachment["bytes"] == 256 and attachment.pop("path") == str(tmp_path / "bytes-2.bin")
    document["headers"] = {"subject": document["headers"]["subject"]}
    assert shape(document, documented("read")) == []
    assert (tmp_path / "bytes-2.bin").read_bytes() == bytes(range(256))


def test_a_place_that_cannot_be_saved_to_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    says = refused("read", "-n", name, "bob@example.com", "--save", str(tmp_path / "file"), code=2)
    assert f"{tmp_path}/file: no directory to save to" in says
    assert "--raw excludes" in refused("read", "-n", name, "bob@example.com", "--raw", "--json", code=2)


# ── reply ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_answers_go_to_and_fro_in_one_thread(name: str) -> None:
    first = answer("send", "-n", name, "--from", "alice@example.com", "--to", "bob@example.com", "--subject", "Grüße")
    second = answer("reply", "-n", name, "bob@example.com", "--body", "Danke!")
    assert shape(second, documented("reply") | {"arrived": second["arrived"]}) == []
    assert (second["from"], second["to"]) == ("bob@example.com", ["alice@example.com"])
    assert (second["subject"], second["in_reply_to"]) == ("Re: Grüße", first["message_id"])
    third = json.loads(mailstack("reply", "-n", name, "alice@example.com", "--body", "-", "--json", stdin="Bitte.\n"))
    got = answer("read", "-n", name, "bob@example.com")
    assert got["subject"] == "Re: Grüße" and got["message_id"] == third["message_id"]
    assert got["headers"]["in-reply-to"] == [second["message_id"]]
    assert got["headers"]["references"][0].split() == [first["message_id"], second["message_id"]]
    lines = got["text"].splitlines()
    assert lines[0] == "Bitte." and "> Danke!" in lines and "> > Hello from the lab." in lines


def test_an_answer_may_carry_a_file_and_leave_the_quote_out(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("attached")
    mailstack("send", "-n", name, "--from", "alice@example.com", "--to", "bob@example.com")
    words = ("--body", "short", "--no-quote", "--attach", str(tmp_path / "a.txt"))
    shown = mailstack("reply", "-n", name, "bob@example.com", *words)
    assert "in the mailbox of alice@example.com after" in shown
    got = answer("read", "-n", name, "alice@example.com")
    assert got["text"].strip() == "short" and [a["name"] for a in got["attachments"]] == ["a.txt"]


def test_an_answer_goes_to_all_whom_reply_to_names(lab: RunningLab, name: str) -> None:
    made = written("<wide@example.com>", Reply_To="Alice <alice@example.com>, carol@example.org")
    number = deliver(lab, made.as_bytes(), "bob@example.com", "<wide@example.com>")
    document = answer("reply", "-n", name, "bob@example.com", str(number), "--body", "all")
    assert list(document["arrived"]) == ["alice@example.com", "carol@example.org"]


def test_who_cannot_be_answered_is_told(lab: RunningLab, name: str) -> None:
    raw = written("<odd@example.com>").as_bytes().replace(b"To: bob", b"Reply-To: -oQ/tmp, <x\x1b[2J@y>\nTo: bob")
    number = str(deliver(lab, raw, "bob@example.com", "<odd@example.com>"))
    says = refused("reply", "-n", name, "bob@example.com", number, "--body", "x", code=2)
    assert "'-oQ/tmp', which is not a mail address" in says and "\x1b" not in says
    raw = written("<bounce@example.com>", From="MAILER-DAEMON@mx.example.net").as_bytes()
    number = str(deliver_from_nobody(lab, raw, "bob@example.com", "<bounce@example.com>"))
    assert "null sender" in refused("reply", "-n", name, "bob@example.com", number, "--body", "x", code=2)
    assert "no mail with UID 77777" in refused("reply", "-n", name, "bob@example.com", "77777", "--body", "x", code=2)


# ── a server that goes ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_watch_whose_server_goes_says_so(lab: RunningLab, name: str) -> None:
    watch = Watch("-n", name, "bob@example.com")
    dovecot = lab.service("dovecot").container
    lab.engine.signal(dovecot, "SIGKILL")
    code, out, err = watch.end()
    mailstack("up", "-n", name)
    assert (code, out) == (3, "") and "the IMAP connection" in err and "was lost" in err
    assert "Traceback" not in err
