"""Attachments are sent in pieces: too large ones are refused first, and a killed command leaves nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mailstack.actions import queues, tracing
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from mailstack.protocol import imap, trust
from tests.docker.conftest import Labs
from tests.docker.test_lab import answer

pytestmark = pytest.mark.docker

MAILSTACK = Path(sys.executable).with_name("mailstack")
MIB = 1024 * 1024
BAR = 50 * MIB
OVERLAY = "x-mailstack:\n  limits: {message_size: 60M, mailbox_quota: 500M}\n"
FROM = ("--from", "student@example.com")


@pytest.fixture(scope="module")
def lab(labs: Labs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    overlay = tmp_path_factory.mktemp("attachments") / "large.yaml"
    overlay.write_text(OVERLAY)
    with labs.one("attachments", [overlay]) as running:
        mail_box = ("--to", "bob@example.com", "--subject", "to be answered")
        answer("send", "-n", running.name, *FROM, *mail_box)
        yield running


# By a small process: a child's most memory is at first that of the process that it was forked from (getrusage(2)).
MEASURED = """
import os, sys
_, status, used = os.wait4(os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
print("\\n", used.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak(*words: str) -> tuple[int, str, int]:
    """Run a command; return its exit code, its standard error, and its peak memory in bytes."""
    argv = [sys.executable, "-c", MEASURED, str(MAILSTACK), *words]
    result = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    said, _, kilobytes = result.stderr.rstrip().rpartition("\n")
    return result.returncode, said, int(kilobytes) * 1024


@pytest.fixture(scope="module")
def at_rest(lab: RunningLab) -> int:
    """Return the memory of a command that sends almost nothing."""
    return peak("send", "-n", lab.name, *FROM, "--to", "bob@example.com")[2]


def sparse(directory: Path, size: int) -> Path:
    with (directory / "large.bin").open("wb") as file:
        file.truncate(size)
    return directory / "large.bin"


def left(lab: RunningLab) -> tuple[str, list[queues.Entry]]:
    """Return the files in the sender's directories for attachments, and the mails in its queue."""
    sender = lab.service("sender").container
    find = "find /tmp /home/student /run /var/spool/postfix/maildrop /var/spool/postfix/incoming -type f"
    files = lab.engine.execute(sender, ["sh", "-c", f"{find} ! -path '/run/*.conf' ! -path '/run/relay/*'"]).stdout
    return files.replace("/run/secrets/", "\n/run/secrets/"), queues.of(lab.engine, {"sender": sender})


@pytest.mark.parametrize(
    "words",
    [
        ("send", "--via", "sender", *FROM),
        ("send", "--via", "submission", *FROM),
        ("reply", "bob@example.com", "--body", "…"),
        ("dialogue", "--via", "submission"),
        ("dialogue", "--via", "smtp"),
        ("dialogue", "--via", "sender", *FROM),
    ],
    ids=" ".join,
)
def test_an_attachment_of_300_mb_is_refused_in_little_memory_and_leaves_nothing(
    lab: RunningLab, at_rest: int, tmp_path: Path, words: Sequence[str]
) -> None:
    large = sparse(tmp_path, 300_000_000)
    before = left(lab)
    code, said, memory = peak(words[0], "-n", lab.name, *words[1:], "--attach", str(large))
    assert code == 1, said
    assert "552 5.3.4" in said or "takes 62,914,560 at most (SIZE, RFC 1870): not sent" in said
    assert "Traceback" not in said
    assert memory - at_rest <= BAR
    assert left(lab) == before


@pytest.mark.parametrize("via", ["sender", "submission"])
def test_one_within_the_limits_arrives_byte_for_byte_in_little_memory(
    lab: RunningLab, at_rest: int, tmp_path: Path, via: str
) -> None:
    content = os.urandom(MIB) * 40
    (tmp_path / "large.bin").write_bytes(content)
    attached = ("--attach", str(tmp_path / "large.bin"))
    words = ("--to", "carol@example.org", "--subject", f"large via {via}", "--timeout", "60s")
    code, said, memory = peak("send", "-n", lab.name, "--via", via, *FROM, *words, *attached)
    assert code == 0, said
    assert memory - at_rest <= BAR
    box = imap.mailbox(
        lab.endpoints["imaps"], trust.tls_context(lab.ca_file), "carol@example.org", lab.password("carol@example.org")
    )
    with box as opened:
        (found,) = [each for each in opened.fetch() if each.subject == f"large via {via}"]
        digests = [hashlib.sha256(each.payload).digest() for each in found.attachments]
        assert digests == [hashlib.sha256(content).digest()]
        opened.delete([found.uid or ""])
    assert left(lab)[1] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
def test_one_whose_sending_is_killed_leaves_nothing_and_is_not_sent(
    lab: RunningLab, tmp_path: Path, number: signal.Signals
) -> None:
    large, before = sparse(tmp_path, 40_000_000), left(lab)
    sender = lab.service("sender").container
    subject = f"killed by {number.name}"

    def at_work() -> bool:
        script = "for each in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $each; echo; done 2> /dev/null"
        return "hand-in" in lab.engine.execute(sender, ["sh", "-c", script]).stdout

    words = ("--to", "carol@example.org", "--subject", subject, "--attach", str(large))
    process = subprocess.Popen(
        [MAILSTACK, "send", "-n", lab.name, "--via", "sender", *FROM, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = Deadline.after(30)
    while not at_work():
        assert process.poll() is None and not deadline.passed(), "it was over before it could be killed"
    process.send_signal(number)
    assert process.wait(30) != 0
    while at_work():
        assert not deadline.passed()
    assert left(lab) == before
    journeys = [each for each in tracing.of_lab(lab, "carol@example.org") if each.sender == "student@example.com"]
    assert all(each.arrived for each in journeys)  # those of the tests before
    with imap.mailbox(
        lab.endpoints["imaps"], trust.tls_context(lab.ca_file), "carol@example.org", lab.password("carol@example.org")
    ) as box:
        assert [each for each in box.fetch(headers_only=True) if each.subject == subject] == []


# The sender's /etc/postfix is a volume: what is edited there stays.
_IN_MEMORY = {
    "postfix": ("/etc/postfix", "/var/lib/postfix"),
    "dovecot": (),
    "sender": ("/var/lib/postfix", "/var/log", "/home/student"),
}


def test_every_directory_in_memory_has_a_size(lab: RunningLab) -> None:
    for service in lab.services():
        mounts = lab.engine.execute(service.container, ["cat", "/proc/mounts"]).stdout.splitlines()
        tmpfs = [line.split()[1:4] for line in mounts if line.split()[2] == "tmpfs"]
        places = {"/tmp", "/run", *_IN_MEMORY[service.name]}
        own = [(place, options) for place, _, options in tmpfs if place in places or place.startswith("/home")]
        assert {place for place, _ in own} >= places
        assert [place for place, options in own if "size=" not in options] == []
