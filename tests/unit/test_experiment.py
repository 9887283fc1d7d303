"""How the experiment judges: what is read off a mail, a dialogue, a setting; and what becomes of a step that fails."""

from __future__ import annotations

import base64
import json
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack import storage
from mailstack.checks.judging import Unmet, expect
from mailstack.checks.logs import about
from mailstack.dialogue import Dialogue, Said, annotate
from mailstack.errors import CheckFailed, InputError
from mailstack.experiment import folder
from mailstack.experiment.evidence import Evidence
from mailstack.experiment.machines import parse_settings
from mailstack.experiment.mailbox import picture
from mailstack.experiment.models import not_kept
from mailstack.experiment.performance import ORDER, all_steps
from mailstack.experiment.scene import Scene
from mailstack.experiment.settings import SETTINGS, fits
from mailstack.experiment.step import Step, judge, run
from mailstack.experiment.talk import misfit
from mailstack.experiment.theory import odd_lines, parse_hops, split
from mailstack.model import Json, Verdict
from mailstack.secret import Secret, blot, new_password
from mailstack.trace.events import Event
from mailstack.trace.journey import Journey
from mailstack.trace.lines import Line

ROOT = Path(__file__).parents[2]
DOCUMENT: Json = json.loads((ROOT / "tests" / "data" / "experiment.json").read_text())
SCENE = cast(Scene, None)  # the steps below look at nothing

# ── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _step(id: str, function: Callable[[Any, Evidence], None], *needs: str, alone: bool = False) -> Step:
    return Step(id, id, "row", "done", "expected", function, needs, alone)


def _fine(scene: Scene, show: Evidence) -> None:
    show.text("seen", "it\n")


def _unmet(scene: Scene, show: Evidence) -> None:
    show.text("seen", "so far")
    expect(False, "it is not so")


def test_a_step_passes_with_its_evidence_and_without_a_reason() -> None:
    outcome = judge(_step("a", _fine), SCENE, {})
    assert (outcome.verdict, outcome.reason) == (Verdict.PASS, "")
    assert outcome.json()["evidence"] == [{"kind": "text", "title": "seen", "text": "it"}]


def test_a_step_that_fails_keeps_the_evidence_that_it_has_found_until_then() -> None:
    outcome = judge(_step("a", _unmet), SCENE, {})
    assert (outcome.verdict, outcome.reason) == (Verdict.FAIL, "it is not so")
    assert [each["text"] for each in outcome.evidence] == ["so far"]


@pytest.mark.parametrize("error", [CheckFailed("refused"), ConnectionRefusedError("refused"), EOFError("refused")])
def test_what_goes_wrong_on_the_way_makes_a_step_fail(error: Exception) -> None:
    def function(scene: Scene, show: Evidence) -> None:
        raise error

    outcome = judge(_step("a", function), SCENE, {})
    assert outcome.verdict is Verdict.FAIL and outcome.reason.endswith("refused")


@pytest.mark.parametrize("error", [KeyError("relayhost"), ValueError("no date")])
def test_what_cannot_be_read_makes_a_step_fail(error: Exception) -> None:
    def function(scene: Scene, show: Evidence) -> None:
        raise error

    outcome = judge(_step("a", function), SCENE, {})
    assert outcome.verdict is Verdict.FAIL
    assert outcome.reason.startswith("unexpected answer: ")


def test_a_mistake_in_the_program_is_no_verdict() -> None:
    def function(scene: Scene, show: Evidence) -> None:
        raise TypeError("a mistake")

    with pytest.raises(TypeError):
        judge(_step("a", function), SCENE, {})


def test_a_step_that_needs_a_failed_one_is_not_done_and_names_the_first_that_failed() -> None:
    done = []

    def never(scene: Scene, show: Evidence) -> None:
        done.append(True)

    steps = [_step("a", _unmet), _step("b", never, "a"), _step("c", never, "b"), _step("d", _fine)]
    outcomes = run(SCENE, steps, lambda outcome: None)
    assert [outcome.verdict for outcome in outcomes] == [Verdict.FAIL, Verdict.FAIL, Verdict.FAIL, Verdict.PASS]
    assert [outcome.reason for outcome in outcomes[1:3]] == ["it needs “a”, which failed: it is not so"] * 2
    assert not done


def test_nothing_runs_beside_a_step_that_is_to_be_alone() -> None:
    now: set[str] = set()
    beside: dict[str, set[str]] = {}
    lock = threading.Lock()

    def watched(id: str) -> Callable[[Any, Evidence], None]:
        def function(scene: Scene, show: Evidence) -> None:
            with lock:
                beside[id] = set(now)
                now.add(id)
            threading.Event().wait(0.01)
            now.remove(id)

        return function

    steps = [_step(id, watched(id), alone=id == "c") for id in "abcde"]
    told: list[str] = []
    outcomes = run(SCENE, steps, lambda outcome: told.append(outcome.step.id))
    assert [outcome.step.id for outcome in outcomes] == list("abcde")
    assert beside["c"] == set() and told[-1] == "c"


def test_a_step_is_done_after_those_that_it_needs_wherever_they_stand() -> None:
    order: list[str] = []

    def noted(id: str) -> Callable[[Any, Evidence], None]:
        return lambda scene, show: order.append(id)

    steps = [_step("a", noted("a"), "c"), _step("b", noted("b"), "a"), _step("c", noted("c"))]
    assert [outcome.step.id for outcome in run(SCENE, steps, lambda outcome: None)] == ["a", "b", "c"]
    assert order == ["c", "a", "b"]


def test_each_step_has_a_name_of_its_own_and_what_it_needs_can_be_done_before_it() -> None:
    steps = {step.id: step for step in all_steps()}
    assert len(steps) == len(all_steps()) and [step.id for step in all_steps()] == list(ORDER)
    done: set[str] = set()
    while ready := {id for id, step in steps.items() if id not in done and done.issuperset(step.needs)}:
        done |= ready
    assert done == set(steps)
    for step in steps.values():
        assert step.row and step.done and step.expected and step.title


# ── judgements ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_setting_of_the_original_is_there() -> None:
    assert {setting.name for setting in SETTINGS} == {
        "relayhost",
        "smtp_sasl_auth_enable",
        "smtp_sasl_security_options",
        "smtp_sasl_password_maps",
        "smtp_use_tls",
        "smtp_tls_CAfile",
        "readme_directory",
        "smtpd_tls_cert_file",
        "smtpd_tls_key_file",
        "smtpd_use_tls",
        "smtpd_tls_session_cache_database",
        "smtp_tls_session_cache_database",
    }


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("relayhost", "[postfix]:587", "[postfix]:25"),
        ("relayhost", "[postfix]:587", "x[postfix]:587"),
        ("smtp_sasl_password_maps", "lmdb:/run/relay/sasl_passwd", "lmdb:/etc/postfix/sasl_passwd"),
        ("smtp_use_tls", "secure", "encrypt"),
        ("smtpd_use_tls", "may", "none"),
        ("smtp_tls_session_cache_database", "lmdb:/var/lib/postfix/smtp_scache", ""),
    ],
)
def test_a_setting_is_held_against_what_the_original_was_for(name: str, good: str, bad: str) -> None:
    setting = next(setting for setting in SETTINGS if setting.name == name)
    assert fits(setting, good) and not fits(setting, bad)


def test_settings_are_read_as_postconf_prints_them() -> None:
    assert parse_settings("a = b\nempty =\nrelayhost = [x]:1 = 2\n\n") == {
        "a": "b",
        "empty": "",
        "relayhost": "[x]:1 = 2",
    }


def test_the_lines_of_a_mail_are_found_by_its_queue_id() -> None:
    log = (
        "postfix/pickup[1]: AAAAA1: uid=1000 from=<a@b>\n"
        "postfix/cleanup[2]: AAAAA1: message-id=<1@b>\n"
        "postfix/cleanup[2]: BBBBB2: message-id=<1@bb>\n"
        "postfix/qmgr[3]: AAAAA1: removed\n"
        "postfix/qmgr[3]: BBBBB2: removed\n"
    )
    lines, hit = about(log.splitlines(), "<1@b>", ": removed")
    assert [line.partition("]: ")[2][:6] for line in lines] == ["AAAAA1"] * 3
    assert hit == "postfix/qmgr[3]: AAAAA1: removed"
    assert about(log.splitlines(), "<1@", "removed") == ([], "")


def test_a_message_is_taken_apart_at_its_first_empty_line() -> None:
    assert split(b"A: b\r\nC: d\r\n\r\nbody\r\n\r\nmore") == (b"A: b\r\nC: d\r\n", b"body\r\n\r\nmore")
    with pytest.raises(Unmet):
        split(b"A: b\r\nbody")


def test_a_line_that_is_no_field_does_not_belong_in_a_header() -> None:
    assert odd_lines(b"A: b\r\n folded\r\nX-Y:z\r\n") == []
    assert odd_lines(b"A: b\r\nno field\r\n") == ["no field"]
    assert odd_lines(b"A: b\nC: d\r\n") == []  # one line, for who reads CR LF
    assert odd_lines(b"From x\r\n") == ["From x"]


def test_hops_are_read_from_received_fields_the_first_one_first() -> None:
    hops = parse_hops(
        [
            (
                "from postfix.example.com ([172.22.0.2])\r\n\tby dovecot with LMTP\r\n\tid Wv\r\n\t"
                "(envelope-from <s@example.com>)\r\n\tfor <bob@example.com>; Mon, 23 Nov 2026 21:28:09 +0000"
            ),
            (
                "from sender.example.com (unknown [172.23.0.2])\r\n\t(using TLSv1.3 with cipher X (256/256 bits)\r\n\t"
                " key-exchange x25519)\r\n\tby postfix.example.com (Postfix) with ESMTPSA id ACA96\r\n\t"
                "for <bob@example.com>; Mon, 23 Nov 2026 21:28:08 +0000 (UTC)"
            ),
            "by sender.example.com (Postfix, from userid 1000)\r\n\tid A4D78; Mon, 23 Nov 2026 21:28:08 +0000 (UTC)",
        ]
    )
    assert [(hop.source, hop.by, hop.protocol, hop.queue_id) for hop in hops] == [
        ("", "sender.example.com", "local", "A4D78"),
        ("sender.example.com", "postfix.example.com", "ESMTPSA", "ACA96"),
        ("postfix.example.com", "dovecot", "LMTP", "Wv"),
    ]
    assert hops[0].moment <= hops[1].moment < hops[2].moment


TALK = """S 220 postfix ESMTP
C EHLO sender
S 250-postfix
S 250 STARTTLS
C STARTTLS
S 220 2.0.0 Ready to start TLS
C EHLO sender
S 250 AUTH PLAIN
C AUTH PLAIN AHgAeQ==
S 235 2.7.0 Authentication successful
C MAIL FROM:<a@example.com>
C RCPT TO:<b@example.com>
C DATA
S 250 2.1.0 Ok
S 250 2.1.5 Ok
S 354 End data with <CR><LF>.<CR><LF>
C Subject: x
C\x20
C text
C .
C QUIT
S 250 2.0.0 Ok: queued as A
S 221 2.0.0 Bye"""


def _talk(text: str) -> Dialogue:
    speakers = {"C": "client", "S": "server"}
    said = [Said(speakers[line[0]], line[2:]) for line in text.split("\n")]  # type: ignore[arg-type]
    return annotate(said, client="sender", server="postfix:587")


def test_a_dialogue_as_smtp_has_it_is_one_also_when_nobody_waits_for_the_farewell() -> None:
    assert misfit(_talk(TALK)) == ""
    assert misfit(_talk(TALK.removesuffix("\nS 221 2.0.0 Bye"))) == ""


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("C STARTTLS\nS 220 2.0.0 Ready to start TLS\n", "", "there is no tls in it"),
        ("C AUTH PLAIN AHgAeQ==\nS 235 2.7.0 Authentication successful\n", "", "there is no auth in it"),
        ("S 250 2.1.5 Ok\n", "", "requests have"),
        ("C \nC text\n", "", "0 messages with a header, an empty line and a body"),
        ("S 250 2.1.5 Ok", "S what", "a reply has no number that is known: what"),
        ("C QUIT\n", "", "there is no quit in it"),
    ],
)
def test_a_dialogue_that_lacks_something_is_told_what(was: str, now: str, says: str) -> None:
    assert was in TALK
    assert says in misfit(_talk(TALK.replace(was, now)))


def _event(service: str, kind: str, at: float, **more: Any) -> Event:
    ids = {"sender": "A1", "postfix": "B2", "dovecot": ""}
    line = Line(at, service, "", None, "")
    return Event(kind, at, service, "", ids[service], "", line, **more)


EVENTS = (
    _event("sender", "named", 1),
    _event("postfix", "named", 2),
    _event("sender", "attempt", 3, status="sent", next_id="B2"),
    _event("sender", "removed", 4),
    _event("dovecot", "saved", 5, session="S"),
    _event("postfix", "attempt", 6, status="sent", session="S"),
    _event("postfix", "removed", 7),
)


def _journey(*events: Event) -> Journey:
    return Journey("<1@b>", None, (), (), events, (), (), (), 1.0)


def test_each_station_kept_a_mail_that_it_removed_after_the_next_one_had_it() -> None:
    assert not_kept(_journey(*EVENTS)) == ""


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ((*EVENTS[:2], EVENTS[3], EVENTS[2], *EVENTS[4:]), "sender removed it before the next station had it"),
        ((*EVENTS[:2], replace(EVENTS[2], next_id="C3"), *EVENTS[3:]), "sender was not told"),
        ((*EVENTS[:2], replace(EVENTS[2], status="deferred"), *EVENTS[3:]), "sender was not told"),
        ((*EVENTS[:4], *EVENTS[5:]), "postfix was not told"),
        (EVENTS[:6], "postfix still has it"),
        ((EVENTS[0], *EVENTS[2:]), "sender was not told"),
    ],
)
def test_a_station_that_let_go_of_a_mail_is_named(events: tuple[Event, ...], says: str) -> None:
    assert not_kept(_journey(*events)).startswith(says)


def test_the_picture_is_a_png_of_its_size() -> None:
    image = picture(20, 10)
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(image):
        (length,) = struct.unpack(">I", image[at : at + 4])
        name, data = image[at + 4 : at + 8], image[at + 8 : at + 8 + length]
        assert struct.unpack(">I", image[at + 8 + length : at + 12 + length]) == (zlib.crc32(name + data),)
        chunks[name] = data
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (20, 10)
    assert len(zlib.decompress(chunks[b"IDAT"])) == 10 * (1 + 20 * 3)


# ── secrets ────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_a_secret_is_blotted_out_as_it_is_and_wherever_in_base64_it_begins(before: bytes, after: bytes) -> None:
    secret = new_password()
    value = secret.reveal()
    encoded = base64.b64encode(before + value.encode() + after).decode()
    shown = blot(f"{value} {encoded}", [secret, Secret("another")])
    assert value not in shown
    # What is left of it in base64 decides none of its characters but the first and the last.
    longest = max(len(piece) for piece in encoded.split("••••••"))
    for start in range(len(encoded) - 8):
        piece = encoded[start : start + 8]
        decoded = base64.b64decode(piece)
        if decoded in value.encode():
            assert piece not in shown, longest


# ── the folder ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _report(path: Path, text: str = "page") -> None:
    with folder.prepared(path) as place:
        folder.write(place, {"index.html": text.encode(), "experiment.json": b"{}", "evidence/x.log": b"x"})


def test_a_report_is_made_where_there_is_nothing_yet_or_an_empty_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "new", tmp_path / "empty"):
        if path.name == "empty":
            path.mkdir()
        _report(path)
        assert {each.name for each in path.iterdir()} == set(folder.ENTRIES)


def test_a_report_takes_the_place_of_one_that_is_there(tmp_path: Path) -> None:
    _report(tmp_path / "report")
    (tmp_path / "report" / "evidence" / "old.log").write_text("old")
    _report(tmp_path / "report", "another")
    assert (tmp_path / "report" / "index.html").read_text() == "another"
    assert [each.name for each in (tmp_path / "report" / "evidence").iterdir()] == ["x.log"]


def test_what_a_killed_writer_has_left_is_no_hindrance_and_is_removed(tmp_path: Path) -> None:
    storage.make(tmp_path / ".writing-x", storage.Marker(storage.REPORT))
    (tmp_path / ".writing-x" / "index.html").write_text("half")
    _report(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == set(folder.ENTRIES)


def test_an_error_of_the_performance_is_not_taken_for_one_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError), folder.prepared(tmp_path / "report"):
        raise ConnectionError("refused")


@pytest.mark.parametrize("there", ["notes.txt", "index.html", ".writing-mine"])
def test_a_folder_with_something_else_in_it_is_refused_before_anything_is_written(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(InputError, match="has something else in it"):
        _report(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [there]


@pytest.mark.parametrize("name", ["notes.txt", "evidence/thesis.tex", "evidence/photos/one.png", "evidence/link.log"])
def test_a_report_with_something_of_the_user_s_added_is_refused(tmp_path: Path, name: str) -> None:
    _report(tmp_path / "report")
    path = tmp_path / "report" / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith("link.log"):
        path.symlink_to(tmp_path)
    else:
        path.write_text("mine")
    with pytest.raises(InputError, match="has something else in it"):
        _report(tmp_path / "report")
    assert path.exists()


def test_a_folder_of_evidence_that_is_a_link_is_refused(tmp_path: Path) -> None:
    _report(tmp_path / "report")
    (tmp_path / "report" / "evidence").rename(tmp_path / "elsewhere")
    (tmp_path / "report" / "evidence").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="has something else in it"):
        _report(tmp_path / "report")
    assert [each.name for each in (tmp_path / "elsewhere").iterdir()] == ["x.log"]


def test_a_file_and_a_folder_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        _report(tmp_path / "file")
    with pytest.raises(InputError, match="no such directory"):
        _report(tmp_path / "absent" / "report")
    for path in (Path("/proc/report"), tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot be written to"):
            _report(path)


def test_when_something_goes_wrong_the_folder_is_as_it_was(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        with folder.prepared(path) as place:
            folder.write(place, {"index.html": b"half"})
            raise CheckFailed("something")

    with pytest.raises(CheckFailed):
        fail(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    _report(tmp_path / "old")
    with pytest.raises(CheckFailed):
        fail(tmp_path / "old")
    assert (tmp_path / "old" / "index.html").read_text() == "page"
    assert {each.name for each in (tmp_path / "old").iterdir()} == set(folder.ENTRIES)


def test_the_report_has_the_page_the_document_and_all_evidence_in_it() -> None:
    files = folder.contents(DOCUMENT, {"postfix": "line\n"})
    assert json.loads(files["experiment.json"]) == DOCUMENT
    assert files["evidence/postfix.log"] == b"line\n"
    assert files["index.html"].startswith(b"<!DOCTYPE html>")
    assert {name for name in files if name.endswith(".svg")} >= {"evidence/topology.svg", "evidence/dialogue.svg"}
    assert {name.partition("/")[0] for name in files} == set(folder.ENTRIES)


def test_where_nothing_was_shown_there_is_a_report_all_the_same() -> None:
    files = folder.contents({**DOCUMENT, "journeys": {}, "dialogue": {}}, {})
    assert "evidence/dialogue.txt" not in files and b"<!DOCTYPE html>" in files["index.html"]


def test_a_transcript_says_who_said_what() -> None:
    text = folder.transcript(_talk("S 220 hello\nC QUIT\nS 221 2.0.0 Bye").json())
    assert text == "C: sender, S: postfix:587\n\nS: 220 hello\nC: QUIT\nS: 221 2.0.0 Bye\n"
