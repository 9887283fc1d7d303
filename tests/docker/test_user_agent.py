"""The user agent on a real lab: mails are listed, watched, read, saved and answered; a hostile one does no harm."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import time
import unicodedata
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from mailstack import mail
from mailstack.model import Deadline
from mailstack.running import RunningLab
from tests.docker.conftest import Labs
from tests.docker.test_lab import MAILSTACK, answer, documented, mailstack, shape
from tests.unit import hostile

pytestmark = pytest.mark.docker

ARRIVAL_SECONDS = 20
TEN_MEGABYTES = 10_000_000


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("agent") as made:
        yield made


@pytest.fixture
def name(lab: RunningLab) -> str:
    return lab.name


def deliver(lab: RunningLab, raw: bytes, to: str, message_id: str) -> int:
    """Submit a mail as it is, as student@example.com, and wait for it: its UID."""
    context = mail.tls_context(lab.ca_file)
    student = "student@example.com"
    with mail.Smtp(mail.to(lab.endpoints["submission"]), name="localhost", tls="starttls", context=context) as session:
        session.login(student, lab.password(student).reveal())
        assert session.sendmail(student, [to], raw) == {}
    return uid(lab, to, message_id)


def deliver_from_nobody(lab: RunningLab, raw: bytes, to: str, message_id: str) -> int:
    """Hand a mail to the MX from the null sender, as another MTA does with a bounce, and wait for it: its UID."""
    with mail.Smtp(mail.to(lab.endpoints["smtp"]), name="localhost") as session:
        assert session.sendmail("", [to], raw) == {}
    return uid(lab, to, message_id)


def uid(lab: RunningLab, address: str, message_id: str) -> int:
    """The UID of a mail, once it has arrived."""
    context = mail.tls_context(lab.ca_file)
    with mail.mailbox(lab.endpoints["imaps"], context, address, lab.password(address)) as box:
        found = mail.wait_for(box, message_id, Deadline.after(ARRIVAL_SECONDS))
    return int(found.uid or 0)


def written(message_id: str, **fields: str) -> EmailMessage:
    """A mail to be delivered, with these fields."""
    made = EmailMessage()
    made["From"] = "student@example.com"
    made["To"] = "bob@example.com"
    made["Message-ID"] = message_id
    for field, value in fields.items():
        del made[field]
        made[field.replace("_", "-")] = value
    made.set_content("Hello\nyou\n")
    return made


def refused(*words: str, code: int) -> str:
    """What the command says on standard error when it ends with this code, and without a traceback."""
    result = subprocess.run([MAILSTACK, *words], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def on_a_terminal(*words: str) -> str:
    """What the command shows where its output is a terminal."""
    master, slave = os.openpty()
    command = subprocess.Popen([MAILSTACK, *words], stdin=slave, stdout=slave, stderr=slave, env=os.environ | NO_COLOUR)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed when the command ends (EIO)
        while piece := os.read(master, 65536):
            shown += piece
    os.close(master)
    assert command.wait() == 0, shown
    return shown.decode()


NO_COLOUR = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}


def harmful(shown: str) -> set[str]:
    """The characters in an output that could drive a terminal; one has a carriage return at each line's end."""
    text = shown.replace("\r\n", "\n")
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co") and c != "\n"}


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
    context = mail.tls_context(lab.ca_file)
    with mail.mailbox(lab.endpoints["imaps"], context, "bob@example.com", lab.password("bob@example.com")) as box:
        box.delete([str(first)])
    assert answer("read", "-n", name, "bob@example.com", str(second))["subject"] == "nr 1"
    assert f"no mail with UID {first}" in refused("read", "-n", name, "bob@example.com", str(first), code=2)


# ── inbox --watch ──────────────────────────────────────────────────────────────────────────────────────────────────


class Watch:
    """`mailstack inbox --watch`, in the background."""

    def __init__(self, *words: str) -> None:
        self._command = subprocess.Popen(
            [MAILSTACK, "inbox", *words, "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._command.stderr is not None and self._command.stdout is not None
        self.first = self._command.stderr.readline().decode()
        assert "watching the mailbox" in self.first

    def line(self) -> str:
        """The next line of its output, as soon as it is there."""
        assert self._command.stdout is not None
        ready, _, _ = select.select([self._command.stdout], [], [], ARRIVAL_SECONDS)
        assert ready, "nothing came"
        return os.read(self._command.stdout.fileno(), 65536).decode()

    def signal(self, number: int) -> None:
        self._command.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """How it ends: code, the rest of its output, its messages."""
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
    context = mail.tls_context(lab.ca_file)
    student = "student@example.com"
    with mail.Smtp(mail.to(lab.endpoints["submission"]), name="localhost", tls="starttls", context=context) as session:
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
    said = []
    for seconds in ("1s", "3s"):
        begun = time.time()
        Watch("-n", name, "carol@example.org", "--timeout", seconds).end()
        log = lab.engine.logs(lab.service("dovecot").container, since=begun)
        said += re.findall(r"imap\(carol@example\.org\).*Logged out in=(\d+)", log)
    assert len(said) == 2 and said[0] == said[1]  # what the client said, in bytes, as Dovecot counted it


def test_count_and_timeout_need_a_watch(name: str) -> None:
    assert "go with --watch" in refused("inbox", "-n", name, "bob@example.com", "--count", "1", code=2)


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
    assert "--raw gives the mail alone" in refused("read", "-n", name, "bob@example.com", "--raw", "--json", code=2)


# ── a hostile mail ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def evil(lab: RunningLab) -> tuple[bytes, str]:
    """Ten megabytes of malice, and their number in alice's mailbox."""
    raw = hostile.mail(TEN_MEGABYTES)
    assert len(raw) == TEN_MEGABYTES
    return raw, str(deliver(lab, raw, "alice@example.com", "<hostile@example.com>"))


def test_a_hostile_mail_is_listed(name: str, evil: tuple[bytes, str]) -> None:
    shown = mailstack("inbox", "-n", name, "alice@example.com")
    assert "10 MB" in shown and "student@example.com" in shown
    assert not harmful(shown) and max(map(len, shown.splitlines())) <= 80
    listed = mailstack("inbox", "-n", name, "alice@example.com", "--json")
    assert not harmful(listed) and "\x1b" in json.loads(listed)["mails"][-1]["subject"]


def test_a_hostile_mail_is_read_in_bounded_time_and_memory(name: str, evil: tuple[bytes, str]) -> None:
    bounded = 'ulimit -d 100000; exec "$@"'  # KiB of memory of its own (RLIMIT_DATA): it takes some 50000
    command = ["bash", "-c", bounded, "-", MAILSTACK, "read", "-n", name, "alice@example.com", evil[1]]
    # Against a parser that takes the square of the mail's size: minutes, not seconds.
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Hello ?[2J from the deep" in shown and "broken" in shown and "red\ufffd0m" in shown
    assert "[attachment: ../../etc/passwd, application/x-evil, 8 B]" in shown
    assert "blob.bin, text/plain, 7.3 MB" in shown
    assert not harmful(shown)


@pytest.mark.parametrize("words", [("inbox",), ("read",), ("read", "--raw"), ("read", "--json")], ids=" ".join)
def test_a_hostile_mail_does_not_drive_the_terminal(name: str, evil: tuple[bytes, str], words: tuple[str, ...]) -> None:
    number = [evil[1]] if words[0] == "read" else []
    shown = on_a_terminal(words[0], "-n", name, "alice@example.com", *number, *words[1:])
    assert "student@example.com" in shown and not harmful(shown)


def test_a_hostile_mail_comes_out_of_a_pipe_as_it_was_sent(name: str, evil: tuple[bytes, str]) -> None:
    command = [MAILSTACK, "read", "-n", name, "alice@example.com", evil[1], "--raw"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    assert raw[raw.index(b"From: Eve") :] == evil[0]


def test_a_hostile_mail_s_attachments_stay_where_they_are_saved(
    name: str, evil: tuple[bytes, str], tmp_path: Path
) -> None:
    directory, victim = tmp_path / "a" / "b" / "saved", tmp_path / "victim"
    directory.mkdir(parents=True)
    victim.write_text("precious")
    (directory / "passwd").symlink_to(victim)
    mailstack("read", "-n", name, "alice@example.com", evil[1], "--save", str(directory))
    assert victim.read_text() == "precious"
    names = {path.name for path in directory.iterdir()}
    assert names == {"passwd", "passwd-2", "shadow", "_nul_[31m", "attachment", "x" * 146 + ".png", "blob.bin"}
    assert {path for path in tmp_path.rglob("*") if path.parent != directory} == {
        *(tmp_path / "a", tmp_path / "a" / "b", directory, victim)
    }
    assert (directory / "passwd-2").read_bytes() == b"number 0"


def test_a_hostile_mail_is_answered(lab: RunningLab, name: str, evil: tuple[bytes, str]) -> None:
    document = answer("reply", "-n", name, "alice@example.com", evil[1], "--body", "No, thank you.")
    assert list(document["arrived"]) == ["student@example.com"] and document["in_reply_to"] == "<hostile@example.com>"
    number = uid(lab, "student@example.com", document["message_id"])
    got = answer("read", "-n", name, "student@example.com", str(number))
    assert got["subject"].startswith("Re: ") and not harmful(got["subject"] + got["text"])
    assert "> Hello ?[2J from the deep" in got["text"].splitlines()


def test_a_hostile_mail_is_traced_to_its_mailbox(name: str, evil: tuple[bytes, str]) -> None:
    shown = mailstack("trace", "-n", name, "<hostile@example.com>")
    assert "delivered to alice@example.com in " in shown and not harmful(shown)
    (journey,) = answer("trace", "-n", name, "<hostile@example.com>")["journeys"]
    assert (journey["status"], journey["missing"]) == ("delivered", [])
    assert [recipient["address"] for recipient in journey["recipients"]] == ["alice@example.com"]


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
    assert "'-oQ/tmp', which is no mail address" in says and "\x1b" not in says
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
