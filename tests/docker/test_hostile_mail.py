"""A hostile mail on a real lab is listed, read, saved, answered and traced, and does no harm."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.lab.running import RunningLab
from tests.docker.agent import (
    deliver,
    harmful,
    on_a_terminal,
    uid,
)
from tests.docker.conftest import Labs
from tests.docker.test_lab import MAILSTACK, answer, mailstack
from tests.unit import hostile

pytestmark = pytest.mark.docker

TEN_MEGABYTES = 10_000_000


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    with labs.one("hostile") as made:
        yield made


@pytest.fixture
def name(lab: RunningLab) -> str:
    return lab.name


@pytest.fixture(scope="module")
def evil(lab: RunningLab) -> tuple[bytes, str]:
    """Deliver ten megabytes of hostile mail to alice; return the UID."""
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
