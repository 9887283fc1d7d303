"""One command on several hosts."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mailstack.cli import hosts as several
from mailstack.errors import InputError, Interrupted
from mailstack.model import Result


def test_hosts_are_named_one_by_one_or_by_a_file_and_each_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# the class\nbox-1\n\nssh://student@box-2:2222  # the second\n")
    assert several.expand(["box-0", f"@{file}", "box-1"]) == ["box-0", "box-1", "ssh://student@box-2:2222"]


@pytest.mark.parametrize("text", [None, "", "# nobody\n", b"\xff\xfe"])
def test_a_file_without_hosts_is_the_users_mistake(tmp_path: Path, text: str | bytes | None) -> None:
    file = tmp_path / "hosts"
    if text is not None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=str(file)):
        several.expand([f"@{file}"])


def test_each_host_gets_the_command_line_with_itself_alone_and_a_folder_of_its_own() -> None:
    argv = ["experiment", "--host", "a", "--host=ssh://b@c:22", "--out", "report", "--json"]
    assert several.host_argv(argv, "ssh://b@c:22", "b-c-22") == [
        *("experiment", "--out", "report/b-c-22", "--json", "--host", "ssh://b@c:22")
    ]
    assert several.host_argv(["up", "--out=x"], "a", "a") == ["up", "--out=x/a", "--json", "--host", "a"]


def test_each_host_has_files_of_its_own_whichever_way_they_are_named() -> None:
    words = several.host_argv(["check", "--junit", "there/results.xml", "auth"], "a", "a")
    assert words[:4] == ["check", "--junit", "there/results-a.xml", "auth"]
    environment = {
        "MAILSTACK_EXPERIMENT_OUT": "report",
        "MAILSTACK_CHECK_JUNIT": "results.xml",
        "MAILSTACK_HOST": "a b",
    }
    assert several.settings("experiment", environment, "a") == {
        "MAILSTACK_HOST": "",
        "MAILSTACK_EXPERIMENT_OUT": "report/a",
    }
    assert several.settings("check", environment, "a")["MAILSTACK_CHECK_JUNIT"] == "results-a.xml"


@given(some.lists(some.text(), unique=True))
def test_no_two_hosts_have_the_same_files_and_none_leads_elsewhere(hosts: list[str]) -> None:
    names = several.file_names(hosts)
    assert len(set(names.values())) == len(hosts) == len(names)
    assert all(re.fullmatch("[A-Za-z0-9_][A-Za-z0-9._-]*", name) for name in names.values())


@pytest.mark.parametrize(
    ("argv", "environment", "reads"),
    [
        (["send", "--body", "-"], {}, True),
        (["send", "--body=-"], {}, True),
        (["send"], {"MAILSTACK_SEND_BODY": "-"}, True),
        (["send", "--body", "hello"], {"MAILSTACK_SEND_BODY": "-"}, False),
        (["send", "--subject", "-"], {}, False),
        (["up", "--body"], {}, False),
    ],
)
def test_a_text_on_standard_input_is_read_once_for_all_hosts(
    argv: list[str], environment: dict[str, str], reads: bool
) -> None:
    assert several.reads_input(argv, environment) is reads


def test_a_command_that_converses_is_for_one_host() -> None:
    with pytest.raises(InputError, match="one host at a time"):
        several.run(["a", "b"], ["shell", "--host", "a", "--host", "b"])


@pytest.mark.process
@pytest.mark.sockets
def test_ctrl_c_ends_the_command_on_every_host(tmp_path: Path, runtime: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        hosts = [f"ssh://{user}@127.0.0.1:{silent.getsockname()[1]}" for user in "ab"]
        with (
            subprocess.Popen(
                [sys.executable, "-m", "mailstack", "version", *(word for host in hosts for word in ("--host", host))],
                env={**os.environ, "HOME": str(tmp_path), "MAILSTACK_RUNTIME_DIR": str(runtime)},
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


def test_an_interruption_tells_where_it_came_too_late_and_what_could_not_be_tidied_up() -> None:
    def ended(host: str, code: int, *messages: str) -> Future[several.HostResult]:
        future: Future[several.HostResult] = Future()
        future.set_result(several.HostResult(host, code, 1.0, None, messages))
        return future

    unborn: Future[several.HostResult] = Future()
    unborn.set_exception(Interrupted("interrupted"))
    tasks = [ended("a", 0), ended("b", 130), ended("c", 3, "mailstack: c: the connection was lost"), unborn]
    assert list(several.other_results(tasks)) == [
        "a: had finished before",
        "c: exited with code 3: c: the connection was lost",
    ]


@pytest.mark.process
def test_the_folder_of_the_reports_is_made_and_one_that_cannot_be_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path / "run"))
    nobody = ("ssh://a@127.0.0.1:1", "ssh://b@127.0.0.1:1")
    assert several.run(nobody, ["experiment", "--out", str(tmp_path / "report")]) == 3
    assert (tmp_path / "report").is_dir()
    with pytest.raises(InputError, match="cannot be created for the reports of the hosts"):
        several.run(nobody, ["experiment", "--out", str(tmp_path / "nowhere" / "report")])


def children(process: int) -> list[int]:
    return [int(each) for file in Path(f"/proc/{process}/task").glob("*/children") for each in file.read_text().split()]


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGKILL, 3, "was killed by SIGKILL"), (signal.SIGTERM, 130, "terminated")]
)
@pytest.mark.process
@pytest.mark.sockets
def test_a_host_whose_process_is_ended_by_a_signal_has_failed_and_is_named(
    tmp_path: Path, runtime: Path, number: signal.Signals, code: int, said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        hosts = [f"ssh://{user}@127.0.0.1:{silent.getsockname()[1]}" for user in "ab"]
        words = ["version", "--json", *(word for host in hosts for word in ("--host", host))]
        with (
            subprocess.Popen(
                [sys.executable, "-m", "mailstack", *words],
                env={**os.environ, "HOME": str(tmp_path), "MAILSTACK_RUNTIME_DIR": str(runtime)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process,
            silent.accept()[0],
            silent.accept()[0],
        ):
            for child in children(process.pid):
                os.kill(child, number)
            output, _ = process.communicate(timeout=20)
    told = {each["host"]: each for each in json.loads(output)["hosts"]}
    assert process.returncode == code
    assert [told[host]["code"] for host in hosts] == [code, code]
    assert all(said in " ".join(told[host]["messages"]) for host in hosts)


@pytest.mark.parametrize(
    ("result", "code", "told"),
    [
        (Result(0, '{"lab": "a"', ""), 3, "the process for h exited without a readable answer"),
        (Result(0, "", "building …"), 3, "the process for h exited without a readable answer"),
        (Result(0, "[" * 100_000, ""), 3, "the process for h exited without a readable answer"),
        (Result(-9, '{"lab": "a"}', ""), 3, "the process for h was killed by SIGKILL"),
        (Result(-11, "", "Fatal Python error"), 3, "the process for h was killed by SIGSEGV"),
        (Result(-2, "", ""), 130, "the process for h was killed by SIGINT"),
        (Result(-15, "", ""), 130, "the process for h was killed by SIGTERM"),
        (Result(-99, "", ""), 3, "the process for h was killed by signal 99"),
        (Result(4, "", "mailstack: too late"), 4, "too late"),
        (Result(1, '{"passed": 3, "failed": 1}', ""), 1, "3 passed, 1 failed"),
    ],
)
def test_success_is_a_code_of_0_and_an_answer(result: Result, code: int, told: str) -> None:
    each = several.host_result("h", result, 1.0)
    assert (each.code, several.summary(each)[-1]) == (code, told)


@pytest.mark.parametrize("answer", ["7", "null", '"verified"', '{"verified": 1, "lab": []}', '{"removed": [1]}', "[]"])
def test_an_answer_of_another_shape_is_an_answer(answer: str) -> None:
    assert several.summary(several.host_result("h", Result(0, answer, ""), 1.0)) == ("done",)


def test_of_a_long_failure_the_table_has_what_happened_and_what_to_do() -> None:
    lines = ["mailstack: it failed", *(f"  line {number}" for number in range(50)), "  → mend it"]
    told = several.summary(several.host_result("h", Result(3, "", "\n".join(lines)), 1.0))
    assert (told[0], told[1], told[-2], told[-1]) == ("it failed", "…", "line 49", "→ mend it")
    assert len(told) <= 12


@pytest.mark.process
def test_what_goes_wrong_with_one_host_here_leaves_the_others_theirs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAILSTACK_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert several.run(["a", "b"], ["version", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)["hosts"]
    assert [each["messages"] for each in told] == [["/no/such/python: cannot be run: No such file or directory"]] * 2
