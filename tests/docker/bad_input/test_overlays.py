"""An overlay with a mistake: one message that names its file, line and column."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docker.bad import Outcome, Overlay, listen, overlays
from tests.docker.bad_input import RUN

pytestmark = pytest.mark.docker

LAB = f"overlays-{RUN}"  # never comes up
UP = ("up", "-n", LAB)


@pytest.mark.parametrize(
    "overlay",
    [
        pytest.param(each, id=f"{name}: {each.title}")
        for name in ("yaml", "block", "compose")
        for each in overlays(name)
    ],
)
def test_a_mistake_in_an_overlay_is_told_with_its_line_and_column(
    overlay: Overlay, wrong: Callable[..., Outcome], tmp_path: Path
) -> None:
    file = tmp_path / "overlay.yaml"
    file.write_text(overlay.text, encoding="utf-8")
    message = wrong(*UP, "-f", str(file)).messages[0]
    assert message.startswith(f"mailstack: {file}:{overlay.place}: ")
    assert overlay.says in message


@pytest.mark.parametrize(
    ("data", "place", "says"),
    [
        pytest.param(b"x-mailstack:\n  mailname: exa\0mple.com\n", "2:16", "U+0000", id="a zero byte"),
        pytest.param(b"x-mailstack:\n  mailname: exa\7mple.com\n", "2:16", "U+0007", id="a bell"),
        pytest.param("# grüße\nx-mailstack: {}\n".encode("latin-1"), "1:5", "not text in UTF-8", id="Latin-1"),
        pytest.param(b"x-mailstack:\n  mailname: \xed\xa0\x80\n", "2:13", "not text in UTF-8", id="half a character"),
        pytest.param(b"\x7fELF\2\1\1\0\xff\xfe" + bytes(range(256)), "1:9", "not text in UTF-8", id="a program"),
        pytest.param(b"\x1f\x8b\x08\0\0\0\0\0", "1:2", "not text in UTF-8", id="a compressed file"),
        pytest.param(
            "x-mailstack:\n  mailname: example.net\n".encode("utf-16"), "2:3", "not one of the lab's", id="UTF-16"
        ),
        pytest.param(
            b"\xef\xbb\xbfx-mailstack:\n  colour: red\n", "2:3", "colour: is not allowed here", id="a byte order mark"
        ),
        pytest.param(b"x-mailstack:\r\n  colour: red\r\n", "2:3", "colour: is not allowed here", id="lines of Windows"),
        pytest.param(b"x-mailstack:\r  colour: red\r", "2:3", "colour: is not allowed here", id="lines of an old Mac"),
        pytest.param(b"x-mailstack: " + b"[" * 5000, "1:1", "nested too deeply", id="5000 brackets"),
        pytest.param(
            b"x-mailstack:\n  limits: {message_size: " + b"9" * 5000 + b"}\n",
            "2:12",
            "should be a size from 1K to 1024G",
            id="a number of 5000 digits",
        ),
        pytest.param(
            b"x-mailstack:\n  relay: {host: a.test, port: " + b"9" * 5000 + b"}\n",
            "2:25",
            "should be a port number",
            id="a port of 5000 digits",
        ),
    ],
)
def test_a_mistake_in_an_overlays_bytes_is_told_with_its_line_and_column(
    data: bytes, place: str, says: str, wrong: Callable[..., Outcome], tmp_path: Path
) -> None:
    file = tmp_path / "overlay.yaml"
    file.write_bytes(data)
    message = wrong(*UP, "-f", str(file)).messages[0]
    assert message.startswith(f"mailstack: {file}:{place}: ")
    assert says in message


@pytest.mark.parametrize("command", [("up",), ("config",), ("secrets", "init", "secrets")])
def test_each_command_that_takes_overlays_says_the_same(
    command: tuple[str, ...], wrong: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text("x-mailstack:\n  accounts:\n    dora@example.com: {}\n")
    Path("bad.yaml").write_text("x-mailstack:\n  accounts:\n    dora@example.com: 5\n")
    message = wrong(*command, "-f", "good.yaml", "-f", "bad.yaml").messages[0]
    assert f"{tmp_path}/bad.yaml:3:5: " in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml", "good.yaml"]


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        pytest.param(lambda path: None, "cannot be read: No such file", id="nothing"),
        pytest.param(lambda path: path.mkdir(), "cannot be read: Is a directory", id="a directory"),
        pytest.param(lambda path: path.symlink_to("nowhere"), "cannot be read: No such file", id="a link to nothing"),
        pytest.param(lambda path: path.symlink_to(path), "cannot be read: Too many levels", id="a link to itself"),
        pytest.param(os.mkfifo, "should be a file", id="a pipe"),
        pytest.param(lambda path: listen(path).close(), "should be a file", id="a socket"),
    ],
)
def test_an_overlay_that_cannot_be_read_is_named(
    prepare: Callable[[Path], None], says: str, wrong: Callable[..., Outcome], tmp_path: Path
) -> None:
    file = tmp_path / "overlay.yaml"
    prepare(file)
    assert f"mailstack: {file}: {says}" in wrong(*UP, "-f", str(file)).messages[0]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("/etc/hostname/overlay.yaml", "Not a directory"),
        ("/" + "x" * 300, "File name too long"),
        ("/" + "x/" * 3000, "File name too long"),
        ("", "Is a directory"),
        ("-", "No such file"),
    ],
)
def test_an_overlay_that_cannot_be_there_is_refused(file: str, says: str, wrong: Callable[..., Outcome]) -> None:
    assert says in wrong(*UP, "-f", file).messages[0]
