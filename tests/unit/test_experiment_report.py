"""The folder of an experiment's report: its contents, and files that are never overwritten."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.errors import CheckFailed, InputError
from mailstack.experiment import folder
from mailstack.experiment.scene import Scene
from mailstack.model import Json
from mailstack.protocol.transcript import RecordedLine, annotate
from mailstack.secret import Secret, blot, new_password
from mailstack.storage import directories

ROOT = Path(__file__).parents[2]
DOCUMENT: Json = json.loads((ROOT / "tests" / "data" / "experiment.json").read_text())
SCENE = cast(Scene, None)  # the steps below look at nothing


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
    directories.make(tmp_path / ".writing-x", directories.Marker(directories.REPORT))
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
    said = [
        RecordedLine("server", "220 hello"),
        RecordedLine("client", "QUIT"),
        RecordedLine("server", "221 2.0.0 Bye"),
    ]
    text = folder.transcript(annotate(said, client="sender", server="postfix:587").json())
    assert text == "C: sender, S: postfix:587\n\nS: 220 hello\nC: QUIT\nS: 221 2.0.0 Bye\n"
