"""The dialogue of client and server for each way into the lab, with the credentials masked."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailstack.actions import recording, sending, tracing
from mailstack.config import files
from mailstack.errors import CheckFailed
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from mailstack.protocol import imap, trust
from mailstack.protocol.transcript import BLOT
from tests import forked
from tests.docker.conftest import Labs
from tests.unit.test_docs import JSON

pytestmark = pytest.mark.docker

SECONDS = 15.0


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    name = labs.new_name("dialogue")
    yield labs.up(name)
    labs.down(name)


def command(lab: RunningLab, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `mailstack dialogue WORDS` with any exit code."""
    return forked.run_text(["dialogue", "-n", lab.name, *words])


def document(lab: RunningLab, *words: str | Path, code: int = 0) -> dict[str, Any]:
    done = command(lab, *words, "--json")
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lines(found: dict[str, Any]) -> list[str]:
    return [line for exchange in found["exchanges"] for line in exchange["lines"]]


def replies(found: dict[str, Any]) -> list[tuple[str, int]]:
    return [(each["step"], each["code"]) for each in found["exchanges"] if each["from"] == "server"]


def secrets(lab: RunningLab) -> list[str]:
    """Return every password of the lab, and its SASL PLAIN form."""
    relay = files.read_relay(lab.directory.files)
    assert relay
    pairs = [(address, each.reveal()) for address, each in files.passwords(lab.directory.files).items()]
    pairs.append((relay[0], relay[1].reveal()))
    plain = [base64.b64encode(f"\0{user}\0{password}".encode()).decode() for user, password in pairs]
    return [password for _, password in pairs] + plain


# ── each way ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_submission_is_shown_with_tls_and_authentication(lab: RunningLab) -> None:
    found = document(lab, "--via", "submission", "--subject", "By submission")
    assert replies(found) == [
        *[("greeting", 220), ("greeting", 250), ("tls", 220), ("greeting", 250), ("auth", 235)],
        *[("envelope", 250), ("envelope", 250), ("data", 354), ("data", 250), ("quit", 221)],
    ]
    assert found["tls"]["version"] == "TLSv1.3"
    assert f"AUTH PLAIN {BLOT}" in lines(found)
    assert "Subject: By submission" in lines(found)
    assert all(exchange["meaning"] and exchange["source"] for exchange in found["exchanges"])
    assert [each["milliseconds"] for each in found["exchanges"]] == sorted(
        each["milliseconds"] for each in found["exchanges"]
    )


def test_port_25_is_shown_without_either(lab: RunningLab) -> None:
    found = document(lab, "--via", "smtp")
    assert {step for step, _ in replies(found)} == {"greeting", "envelope", "data", "quit"}
    assert found["tls"] is None
    assert any(line.startswith("MAIL FROM:<visitor@elsewhere.example>") for line in lines(found))


def test_the_hop_from_the_senders_mta_is_shown_with_the_message_as_it_was_sent(lab: RunningLab) -> None:
    found = document(lab, "--via", "sender", "--subject", "By the sender")
    assert (found["client"], found["server"]) == ("sender", "postfix:587")
    assert "EHLO sender.example.com" in lines(found)
    assert f"AUTH PLAIN {BLOT}" in lines(found)
    assert ("auth", 235) in replies(found)
    assert ("quit", 221) in replies(found)
    assert found["tls"]["version"] == "TLSv1.3"
    message = next(each["lines"] for each in found["exchanges"] if each["source"] == "RFC 5322, section 2.1")
    assert message[0].startswith("Received: by sender.example.com (Postfix, from userid 1000)")
    assert "Subject: By the sender" in message
    assert message[-2:] == ["", "Hello from the lab."]
    assert not any(line.startswith(sending.ROUTE_HEADER) for line in lines(found))


def test_a_recorded_mail_leaves_the_same_lines_in_the_log_as_any_other(lab: RunningLab) -> None:
    for _ in range(3):
        found = document(lab, "--via", "sender")
        deadline = Deadline.after(SECONDS)
        while not (journeys := tracing.of_lab(lab, found["message_id"])) or journeys[0].json()["status"] != "delivered":
            assert not deadline.passed()
        assert journeys[0].json()["missing"] == []
        assert [hop["service"] for hop in journeys[0].json()["hops"]] == ["sender", "postfix"]


def test_the_document_is_as_it_is_written_down(lab: RunningLab) -> None:
    written = json.loads(JSON.split("## `mailstack dialogue --json`")[1].split("```json\n")[1].split("```")[0])
    found = document(lab)
    assert list(found) == list(written)
    for exchange in found["exchanges"]:
        assert list(exchange) == list(written["exchanges"][0])
    assert written["exchanges"][1]["meaning"] in [exchange["meaning"] for exchange in found["exchanges"]]


def test_every_line_is_shown_at_a_terminal_of_80_columns(lab: RunningLab) -> None:
    done = command(lab, "--body", "x" * 77)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "TLS from here on: TLSv1.3" in done.stdout
    assert "RFC 3207, section 4" in done.stdout
    assert sum(line.count("x") for line in done.stdout.splitlines() if set(line.strip()) == {"x"}) == 77


def test_it_is_drawn(lab: RunningLab, tmp_path: Path) -> None:
    found = document(lab, "--via", "sender", "--svg", tmp_path / "dialogue.svg")
    words = {"".join(each.itertext()).replace("\u00a0", " ") for each in ET.parse(tmp_path / "dialogue.svg").iter()}
    assert f"AUTH PLAIN {BLOT}" in words
    assert f"TLS from here on: {found['tls']['version']}, {found['tls']['cipher']}" in words


# ── what is refused ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("via", ["submission", "smtp", "sender"])
def test_an_unknown_recipient_is_shown_as_a_dialogue_and_ends_with_1(lab: RunningLab, via: str) -> None:
    found = document(lab, "--via", via, "--to", "nobody@example.com", code=1)
    refused = next(each for each in found["exchanges"] if each["code"] == 550)
    assert refused["enhanced"] == "5.1.1"
    assert "there is no such mailbox" in refused["meaning"]
    assert "nobody@example.com" in found["refused"][0]
    assert not any("354" in line for line in lines(found)[-3:])


def test_on_port_25_an_address_of_the_lab_is_refused_as_sender(lab: RunningLab) -> None:
    done = command(lab, "--via", "smtp", "--from", "alice@example.com")
    assert done.returncode == 1
    assert "S 553 5.7.1" in done.stdout
    assert "QUIT" in done.stdout
    assert "553 5.7.1" in done.stderr


def test_of_two_recipients_the_one_that_is_known_gets_the_mail(lab: RunningLab) -> None:
    found = document(lab, "--to", "nobody@example.com", "--to", "bob@example.com", code=1)
    assert [code for step, code in replies(found) if step == "envelope"] == [250, 550, 250]
    assert len(found["refused"]) == 1
    context = trust.tls_context(lab.ca_file)
    with imap.mailbox(lab.endpoints["imaps"], context, "bob@example.com", lab.password("bob@example.com")) as box:
        imap.wait_for(box, found["message_id"], Deadline.after(SECONDS))


def test_where_the_picture_cannot_be_written_nothing_is_sent(lab: RunningLab, tmp_path: Path) -> None:
    before = lab.engine.logs(lab.service("postfix").container)
    for place in (tmp_path, tmp_path / "none" / "x.svg", Path("/proc/x.svg")):
        done = command(lab, "--svg", place)
        assert done.returncode == 2
        assert f"{place}: cannot be written" in done.stderr
    assert lab.engine.logs(lab.service("postfix").container) == before


def test_a_sender_of_nobody_is_wrong_input(lab: RunningLab) -> None:
    assert command(lab, "--from", "visitor@elsewhere.example").returncode == 2


# ── the recorder ───────────────────────────────────────────────────────────────────────────────────────────────────


def recorders(lab: RunningLab) -> int:
    """Return how many recorders run in the sender."""
    counted = lab.engine.execute(lab.service("sender").container, ["sh", "-c", "grep -l bin/recorder /proc/*/cmdline"])
    return len([line for line in counted.stdout.splitlines() if "self" not in line]) - 1  # and the shell itself


def test_credentials_are_in_no_log_and_in_no_file_after_a_recording(lab: RunningLab) -> None:
    container = lab.service("sender").container
    said = command(lab, "--via", "sender")
    needles = secrets(lab)
    for text in (said.stdout, said.stderr, lab.engine.logs(container)):
        assert BLOT in text or text is not said.stdout
        assert not [needle for needle in needles if needle in text]
    script = "cat > /tmp/needles; grep -rlaFf /tmp/needles /run /tmp /etc/postfix /var /home; rm /tmp/needles"
    found = lab.engine.execute(container, ["sh", "-c", script], input="\n".join(needles).encode())
    assert set(found.stdout.split()) == {
        "/tmp/needles",
        "/run/secrets/relay",
        "/run/relay/sasl_passwd",
        "/run/relay/sasl_passwd.lmdb",
        "/run/secrets/student",
        "/home/student/.mu-tickets",
    }


def test_two_recordings_at_once_each_have_their_own_dialogue(lab: RunningLab) -> None:
    argv = [sys.executable, "-m", "mailstack", "dialogue", "-n", lab.name, "--via", "sender", "--json", "--subject"]
    both = [subprocess.Popen([*argv, name], stdout=subprocess.PIPE, text=True) for name in ("one", "two")]
    for name, process in zip(("one", "two"), both, strict=True):
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert f"Subject: {name}" in lines(json.loads(out))


def test_a_controller_that_is_killed_leaves_no_recorder_and_mail_goes_on(lab: RunningLab) -> None:
    """Killed after the recorder was ready, and before it heard anything."""
    code = (
        "import os, time; from mailstack.target import target; from mailstack.engine.engine import Engine\n"
        "from mailstack.lab.running import RunningLab\n"
        f"lab = RunningLab({lab.name!r}, Engine(target.local(os.environ)))\n"
        "stream = lab.engine.stream(lab.service('sender').container, ['recorder', '60'], user='postfix')\n"
        "print(stream.recv(6).decode(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout
        assert controller.stdout.readline() == "ready\n"
        assert recorders(lab) == 1
        letter = sending.letter(lab.definition(), None, ["bob@example.com"], "Killed", "Hello.", [])
        controller.send_signal(signal.SIGKILL)
        sent = sending.send(lab, letter, "sender", Deadline.after(SECONDS), route="recorded")
    assert "bob@example.com" in sent.arrived
    deadline = Deadline.after(SECONDS)
    while recorders(lab):
        assert not deadline.passed()
        time.sleep(0.05)
    assert command(lab, "--via", "sender").returncode == 0


def test_a_recorder_that_dies_in_the_midst_of_a_dialogue_lets_nothing_out(lab: RunningLab) -> None:
    """Here a listener that is gone after the first line, and leaves its socket behind, as one that is killed would."""
    container = lab.service("sender").container
    listener = (
        "unlink $ARGV[0]; my $heard = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0]) or die; $| = 1;"
        'print "ready\n"; recv $heard, my $line, 65536, 0; print "$line\n"'
    )
    argv = ["perl", "-MIO::Socket::UNIX", "-e", listener, "/var/spool/postfix/public/recorder"]
    letter = sending.letter(lab.definition(), None, ["bob@example.com"], "Unheard", "Hello.", [])
    with lab.engine.stream(container, argv, user="postfix") as stream, stream.makefile("rb") as heard:
        assert heard.readline() == b"ready\n"
        sent = sending.send(lab, letter, "sender", Deadline.after(SECONDS), route="recorded")
        assert b"]: " in heard.read()
    assert "bob@example.com" in sent.arrived
    log = lab.engine.logs(container)
    assert "AUTH PLAIN" not in log
    assert not [needle for needle in secrets(lab) if needle in log]


def test_a_mail_that_is_recorded_arrives_also_when_nobody_listens(lab: RunningLab) -> None:
    letter = sending.letter(
        lab.definition(), "student@example.com", ["bob@example.com"], "Heard by no one", "Hello.", []
    )
    sent = sending.send(lab, letter, "sender", Deadline.after(SECONDS), route="recorded")
    assert "with ESMTPSA id" in received(lab, "bob@example.com", sent.message_id)[1], "TLS and SASL (RFC 3848)"
    log = lab.engine.logs(lab.service("sender").container)
    assert "name_mask" not in log
    assert "AUTH PLAIN" not in log


# ── straight to port 25 ────────────────────────────────────────────────────────────────────────────────────────────


def received(lab: RunningLab, address: str, message_id: str) -> tuple[str, ...]:
    """Return the Received: fields of a mail in a mailbox, newest first, without the header that chose the route."""
    context = trust.tls_context(lab.ca_file)
    with imap.mailbox(lab.endpoints["imaps"], context, address, lab.password(address)) as box:
        headers = dict(imap.find(box, message_id)[0].headers)
    assert sending.ROUTE_HEADER.lower() not in headers
    found: tuple[str, ...] = headers["received"]
    return found


def test_a_mail_can_go_straight_to_the_providers_port_25(lab: RunningLab) -> None:
    letter = sending.letter(lab.definition(), "student@campus.example", ["bob@example.com"], "Straight", "Hello.", [])
    sent = sending.send(lab, letter, "sender", Deadline.after(SECONDS), route="direct")
    assert "with ESMTPS id" in received(lab, "bob@example.com", sent.message_id)[1], "TLS, and no SASL (RFC 3848)"


# ── last, for it takes the provider away ───────────────────────────────────────────────────────────────────────────


def test_where_nobody_answers_that_is_said(lab: RunningLab) -> None:
    postfix = lab.service("postfix").container
    lab.engine.stop(postfix)
    letter = sending.letter(lab.definition(), None, ["bob@example.com"], "To nobody", "Hello.", [])
    try:
        for via in ("sender", "submission"):
            with pytest.raises(CheckFailed, match="there was no SMTP dialogue: "):
                recording.record(lab, letter, via, Deadline.after(SECONDS))
    finally:
        lab.engine.start(postfix)
