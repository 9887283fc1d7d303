"""One command on several hosts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mailstack.cli import several
from mailstack.errors import InputError


def test_hosts_are_named_one_by_one_or_by_a_file_and_each_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# the class\nbox-1\n\nssh://student@box-2:2222  # the second\n")
    assert several.named(["box-0", f"@{file}", "box-1"]) == ["box-0", "box-1", "ssh://student@box-2:2222"]


@pytest.mark.parametrize("text", [None, "", "# nobody\n", b"\xff\xfe"])
def test_a_file_without_hosts_is_the_users_mistake(tmp_path: Path, text: str | bytes | None) -> None:
    file = tmp_path / "hosts"
    if text is not None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=str(file)):
        several.named([f"@{file}"])


def test_each_host_gets_the_command_line_with_itself_alone_and_a_folder_of_its_own() -> None:
    argv = ["experiment", "--host", "a", "--host=ssh://b@c:22", "--out", "report", "--json"]
    assert several.alone(argv, "ssh://b@c:22") == [
        *("experiment", "--out", "report/b-c-22", "--json", "--host", "ssh://b@c:22")
    ]
    assert several.alone(["up", "--out=x"], "a") == ["up", "--out=x/a", "--json", "--host", "a"]


def test_a_command_that_converses_is_for_one_host() -> None:
    with pytest.raises(InputError, match="one host at a time"):
        several.run(["a", "b"], ["shell", "--host", "a", "--host", "b"])


def test_ctrl_c_ends_the_command_on_every_host(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        hosts = [f"ssh://{user}@127.0.0.1:{silent.getsockname()[1]}" for user in "ab"]
        with (
            subprocess.Popen(
                [sys.executable, "-m", "mailstack", "version", *(word for host in hosts for word in ("--host", host))],
                env={**os.environ, "HOME": str(tmp_path), "MAILSTACK_RUNTIME_DIR": str(tmp_path / "run")},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process,
            silent.accept()[0],
            silent.accept()[0],
        ):
            process.send_signal(signal.SIGINT)
            output, said = process.communicate(timeout=8)  # a host that says nothing is waited for longer than that
    assert (process.returncode, output) == (130, "")
    assert said.endswith("mailstack: interrupted\n")
