"""Attachments are saved in the given directory, and replace nothing."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.errors import InputError
from mailstack.message.attachments import LONGEST_NAME, safe_name, save


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("photo.png", "photo.png"),
        ("naïve Grüße.pdf", "naïve Grüße.pdf"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        (".", "attachment"),
        ("..", "attachment"),
        ("", "attachment"),
        ("a/", "attachment"),
        (" . ", "attachment"),
        (".bashrc", "bashrc"),
        ("-rf", "_-rf"),
        ("~root", "_~root"),
        ("a\x00b\x1b[2J\r\n.txt", "a_b_[2J__.txt"),
        ("invoice\u202efdp.exe", "invoice_fdp.exe"),
        ("C:evil.txt", "C_evil.txt"),
        ("nul", "_nul"),
        ("COM1.txt", "_COM1.txt"),
        ("a" * 400 + ".png", "a" * (LONGEST_NAME - 4) + ".png"),
        ("a." + "b" * 400, "a." + "b" * 19),
    ],
)
def test_a_name_becomes_one_that_does_no_harm(written: str, name: str) -> None:
    assert safe_name(written) == name


def test_an_attachment_without_a_name_is_called_after_its_type() -> None:
    assert safe_name("", "image/png") == "attachment.png"
    assert safe_name("", "nonsense") == "attachment"


@given(some.one_of(some.text(some.characters()), some.text("./\\-~ con\x00\u202e:\ud800")), some.text())
def test_whatever_a_name_is_it_stays_in_the_directory(written: str, kind: str) -> None:
    name = safe_name(written, kind)
    assert PurePath("/dir", name).parent == PurePath("/dir") and os.path.normpath(f"/dir/{name}") == f"/dir/{name}"
    assert 0 < len(name.encode()) <= LONGEST_NAME
    assert name[0] not in ".-~ " and name[-1] not in ". "
    assert not {unicodedata.category(c)[0] for c in name.replace(" ", "")} & {"C", "Z"}
    assert safe_name(name) == name


def test_files_are_written_and_nothing_is_replaced(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "directory"
    assert save(directory, [("a.txt", b"1"), ("a.txt", b"2"), ("b", b"")]) == [
        directory / "a.txt",
        directory / "a-2.txt",
        directory / "b",
    ]
    assert save(directory, [("a.txt", b"3")]) == [directory / "a-3.txt"]
    assert [path.read_bytes() for path in sorted(directory.iterdir())] == [b"2", b"3", b"1", b""]


def test_a_link_that_waits_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    directory, victim = tmp_path / "dir", tmp_path / "victim"
    directory.mkdir()
    victim.write_text("precious")
    (directory / "a.txt").symlink_to(victim)
    (directory / "b.txt").symlink_to(tmp_path / "nowhere")
    (directory / "c.txt").mkdir()
    saved = save(directory, [("a.txt", b"evil"), ("b.txt", b"evil"), ("c.txt", b"evil")])
    assert [path.name for path in saved] == ["a-2.txt", "b-2.txt", "c-2.txt"]
    assert victim.read_text() == "precious" and not (tmp_path / "nowhere").exists()


def test_files_are_for_reading_not_for_running(tmp_path: Path) -> None:
    (saved,) = save(tmp_path, [("run.sh", b"#!/bin/sh\n")])
    assert not saved.stat().st_mode & 0o111


def test_a_file_that_is_no_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="no directory to save to"):
            save(place, [])


def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save(tmp_path, [("a", b"x" * 5000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []
