"""Secrets are not printed, and only their owner can read their files."""

from __future__ import annotations

import base64
import html
import json
import os
import pickle
import shlex
import time
import urllib.parse
from pathlib import Path

import pytest

from mailstack.errors import HostError
from mailstack.secret import Blotter, Secret, blot, new_password, write_private


def test_a_secret_does_not_show_in_any_form_of_text() -> None:
    secret = Secret("hunter2")
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret:>10}",
        repr([secret]),
        repr({"a": secret}),
    ]
    assert not any("hunter2" in text for text in shown)


ODD = "p&s'w\"o+r=d <\\> %/ä€ü"


@pytest.mark.parametrize(
    "shown",
    [
        ODD,
        json.dumps({"password": ODD}),
        json.dumps({"password": ODD}, ensure_ascii=False),
        repr([ODD]),
        html.escape(ODD),
        html.escape(ODD, quote=False),
        "smtp://u:" + urllib.parse.quote(ODD, safe="") + "@host",
        urllib.parse.quote(ODD),
        urllib.parse.urlencode({"password": ODD}),
        shlex.join(["--password", ODD]),
        base64.b64encode(ODD.encode()).decode(),
        base64.urlsafe_b64encode(b"xx" + ODD.encode()).decode(),
        base64.b64encode(f"\0user\0{ODD}".encode()).decode(),
        base64.b64encode(f"\0users\0{ODD}".encode()).decode(),
        "AUTH=p&s'w\"o+2Br+3Dd+20<\\>+20%/+C3+A4+E2+82+AC+C3+BC",
        "said p&s'w\"o+r=d <\\> %/???????",
    ],
)
def test_a_secret_is_blotted_out_in_every_form_in_which_programs_write_it(shown: str) -> None:
    others = [new_password() for _ in range(300)]
    for blotted in (blot(shown, [Secret(ODD)]), blot(shown, [*others, Secret(ODD)])):
        assert "••••••" in blotted
        assert not {ODD, ODD[:4], "o+r", "%/"} & {blotted[at : at + n] for at in range(len(blotted)) for n in (3, 4)}
        assert len(blotted) < len(shown)


def test_of_thousands_of_secrets_each_is_blotted_out() -> None:
    secrets = [new_password() for _ in range(2000)]
    text = (
        " ".join(secret.reveal() for secret in secrets[::100]) + base64.b64encode(secrets[7].reveal().encode()).decode()
    )
    blotted = blot(text, secrets)
    assert not any(secret.reveal() in blotted for secret in secrets)
    assert blotted.count("••••••") == 21


def test_a_document_stays_one_whatever_the_password_is() -> None:
    document = {"code": 1, "lines": ["1 of 11", None, True, 1.5], "a1": {"text": '"1"'}}
    for password in ("1", '"', "e", "null", "{"):
        cleaned = Blotter([Secret(password)]).document(document)
        assert json.loads(json.dumps(cleaned))["code"] == 1
        assert password not in cleaned["lines"][0]
    assert blot("nothing", [Secret("")]) == "nothing"


def test_a_secret_is_not_serialised() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret("hunter2"))
    with pytest.raises(TypeError):
        json.dumps(Secret("hunter2"))


def test_a_secret_is_revealed_when_asked_by_name() -> None:
    assert Secret("hunter2").reveal() == "hunter2"
    assert Secret("hunter2") == Secret("hunter2") != Secret("hunter3")
    assert not Secret("") and Secret("x")


def test_passwords_are_long_different_and_safe_in_every_file_format() -> None:
    passwords = {new_password().reveal() for _ in range(100)}
    assert len(passwords) == 100
    assert all(len(p) == 24 and not set(p) & set(": \t\r\n#{}$\"'\\") for p in passwords)


def test_a_private_file_is_readable_by_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "secret", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_private_file_keeps_its_inode_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert write_private(path, "first")
    inode = path.stat().st_ino
    assert write_private(path, "second")
    assert (path.stat().st_ino, path.read_text()) == (inode, "second")


def test_writing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, "x")
    before = path.stat()
    assert not write_private(path, "x")
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_file_is_never_new_to_postfix_and_always_newer_to_dovecot(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, "0")
    times = [int(path.stat().st_mtime)]
    for text in "12345":  # within one second
        write_private(path, text)
        times.append(int(path.stat().st_mtime))
    assert times == sorted(set(times))
    assert times[-1] < time.time() - 2


def test_no_password_looks_like_an_option() -> None:
    assert not any(new_password().reveal().startswith("-") for _ in range(2000))


@pytest.mark.parametrize("kind", ["link", "hard link", "FIFO", "directory"])
def test_nothing_is_written_through_a_link_or_to_anything_but_a_file(tmp_path: Path, kind: str) -> None:
    path, foreign = tmp_path / "accounts", tmp_path / "foreign"
    foreign.write_text("a thesis")
    match kind:
        case "link":
            path.symlink_to(foreign)
        case "hard link":
            path.hardlink_to(foreign)
        case "FIFO":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
    with pytest.raises(HostError, match="accounts: "):
        write_private(path, "secret")
    assert foreign.read_text() == "a thesis"


def test_a_file_of_ours_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "secret")
    assert path.stat().st_mode & 0o777 == 0o600
