"""What holds of a runner of commands, wherever it runs them: here (unit), or on a host over SSH (docker)."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from mailstack.errors import CommandFailed, DeadlinePassed, Interrupted
from mailstack.model import Command, Deadline
from mailstack.runner import output
from mailstack.runner.local import CommandRunner, run_checked


def sh(script: str, **more: object) -> Command:
    """A command that every machine has."""
    return Command(("sh", "-c", script), **more)  # type: ignore[arg-type]


def number() -> str:
    """What no other process has in its command line: for sleep(1) a time that never comes."""
    return str(10**6 + secrets.randbelow(10**8))


def running(runner: CommandRunner, mark: str) -> bool:
    """Whether there is a process with `mark` in its command line, where the runner runs."""
    # A process has its mark between other characters: what looks for it is none of them.
    found = runner.run(sh(f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '[s]leep {mark} '"))
    return found.code == 0


def gone(runner: CommandRunner, mark: str) -> bool:
    """Whether there is none, soon."""
    deadline = Deadline.after(5)
    while running(runner, mark):
        if deadline.passed():
            return False
        time.sleep(0.02)
    return True


class Commands:
    """The facts; a fixture `runner` gives what they are about."""

    def test_a_result_has_the_code_and_both_outputs(self, runner: CommandRunner) -> None:
        result = runner.run(sh("echo out; echo err >&2; exit 7"))
        assert (result.code, result.stdout, result.stderr) == (7, "out\n", "err")

    def test_input_and_environment_reach_the_command(self, runner: CommandRunner) -> None:
        command = sh('read line; echo "$line $X"', input=b"in\n", environment={"X": "a b"})
        assert runner.run(command).stdout == "in a b\n"

    def test_a_command_that_reads_no_input_is_not_an_error(self, runner: CommandRunner) -> None:
        assert runner.run(sh("exit 0", input=b"x" * 10**7)).code == 0

    def test_lines_are_seen_as_they_come(self, runner: CommandRunner) -> None:
        seen: list[str] = []
        runner.run(sh("echo a >&2; echo b >&2"), on_line=seen.append)
        assert seen == ["a", "b"]

    def test_a_failed_command_is_reported_with_its_last_lines(self, runner: CommandRunner) -> None:
        with pytest.raises(CommandFailed, match="exited with code 3") as caught:
            run_checked(runner, sh("echo the reason >&2; exit 3"))
        assert caught.value.details == "the reason"

    def test_a_command_that_takes_too_long_is_ended_and_the_message_says_when(self, runner: CommandRunner) -> None:
        mark = number()
        begun = time.monotonic()
        with pytest.raises(DeadlinePassed, match=r"did not finish within 0\.3 s"):
            runner.run(sh(f"echo begun; exec sleep {mark} 0"), deadline=Deadline.after(0.3))
        assert time.monotonic() - begun < 5
        assert gone(runner, mark)

    def test_the_next_command_has_its_own_answer(self, runner: CommandRunner) -> None:
        with pytest.raises(DeadlinePassed):
            runner.run(sh("echo late >&2; sleep 1; echo late"), deadline=Deadline.after(0.2))
        assert runner.run(sh("echo mine")).stdout == "mine\n"

    def test_a_command_that_is_done_in_time_has_its_result(self, runner: CommandRunner) -> None:
        assert runner.run(sh("echo done"), deadline=Deadline.after(60)).stdout == "done\n"

    def test_commands_of_several_threads_do_not_wait_for_each_other(self, runner: CommandRunner) -> None:
        pipe = f"/tmp/{number()}"
        runner.run(sh(f"mkfifo {pipe}"))
        said: list[str] = []

        def read() -> None:
            said.append(runner.run(sh(f"cat {pipe}; rm {pipe}"), deadline=Deadline.after(20)).stdout)

        thread = threading.Thread(target=read)
        thread.start()
        runner.run(sh(f"echo word > {pipe}"), deadline=Deadline.after(20))
        thread.join()
        assert said == ["word\n"]

    def test_an_interruption_ends_the_command_and_goes_on(self, runner: CommandRunner, interruption: None) -> None:
        mark = number()

        def ask() -> None:
            while not running(runner, mark):
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        asking = threading.Thread(target=ask)
        asking.start()
        with pytest.raises(Interrupted):
            runner.run(sh(f"exec sleep {mark} 0"))
        asking.join()
        assert gone(runner, mark)
        assert runner.run(sh("echo mine")).stdout == "mine\n"

    @pytest.mark.parametrize("error", [ZeroDivisionError("mine"), BrokenPipeError(32, "mine"), ValueError("mine")])
    def test_what_a_line_callback_raises_reaches_the_caller_after_the_command_was_ended(
        self, runner: CommandRunner, error: Exception
    ) -> None:
        mark, seen = number(), []

        def refuse(line: str) -> None:
            seen.append(line)
            raise error

        # It prints more than its pipe holds, so that it would wait for a reader for ever.
        script = f"sleep {mark} 0 & trap 'kill $!' EXIT; while :; do echo {'x' * 500} >&2; done"
        with pytest.raises(type(error)) as caught:
            runner.run(sh(script), deadline=Deadline.after(60), on_line=refuse)
        assert caught.value is error
        assert seen == ["x" * 500]
        assert gone(runner, mark)
        assert runner.run(sh("echo mine")).stdout == "mine\n"

    @pytest.mark.parametrize(
        ("script", "data"),
        [
            ("exec sleep {mark} 0", b"x" * 10**7),  # does not read what it is given
            ("trap '' TERM; sleep {mark} 0; sleep {mark} 0; sleep {mark} 0", None),  # does not listen
            ("trap '' TERM; (trap '' TERM; exec sleep {mark} 0) & wait", b"x" * 10**7),  # nor does its child
            ("while :; do echo word; done; : {mark} ", None),
            ("while :; do echo word >&2; done; : {mark} ", None),
        ],
    )
    def test_the_deadline_holds_whatever_the_command_does(
        self, runner: CommandRunner, script: str, data: bytes | None
    ) -> None:
        mark, begun = number(), time.monotonic()
        with pytest.raises(DeadlinePassed, match=r"did not finish within 1 s"):
            runner.run(sh(script.format(mark=mark), input=data), deadline=Deadline.after(1))
        assert time.monotonic() - begun < 5
        assert gone(runner, mark)

    @pytest.mark.parametrize("deadline", [None, 20.0])
    def test_a_process_that_the_command_leaves_behind_with_its_outputs_is_not_waited_for(
        self, runner: CommandRunner, deadline: float | None
    ) -> None:
        mark, begun = number(), time.monotonic()
        command = sh(f"sleep {mark} 0 & echo $!; echo done >&2; exit 3")
        result = runner.run(command, deadline=Deadline.after(deadline) if deadline else None)
        try:
            assert (result.code, result.stderr) == (3, "done")
            assert time.monotonic() - begun < 5
            assert running(runner, mark)  # it was left behind on purpose
        finally:
            runner.run(sh(f"kill {result.stdout}"))

    def test_a_command_that_is_ended_by_a_signal_has_that_for_its_code(self, runner: CommandRunner) -> None:
        result = runner.run(sh("echo out; kill -KILL $$"))
        assert (result.code, result.stdout) == (-signal.SIGKILL, "out\n")
        with pytest.raises(CommandFailed, match="was killed by SIGTERM"):
            run_checked(runner, sh("kill -TERM $$"))

    def test_bytes_that_are_no_text_are_replaced_and_the_last_line_needs_no_end(self, runner: CommandRunner) -> None:
        seen: list[str] = []
        result = runner.run(sh(r"printf 'a\377b'; printf 'c\377d\ne\377' >&2"), on_line=seen.append)
        assert (result.stdout, seen, result.stderr) == ("a\ufffdb", ["c\ufffdd", "e\ufffd"], "c\ufffdd\ne\ufffd")

    def test_both_outputs_and_the_input_may_be_long_at_the_same_time(self, runner: CommandRunner) -> None:
        data = b"0123456789abcde\n" * 60_000
        result = runner.run(sh("tee /dev/stderr", input=data), deadline=Deadline.after(60))
        assert (result.stdout, result.stderr + "\n") == (data.decode(), data.decode())

    def test_of_a_flood_of_lines_the_last_are_kept(self, runner: CommandRunner) -> None:
        result = runner.run(sh("yes 0123456789abcde | head -n 700000 >&2; echo last >&2"), deadline=Deadline.after(60))
        assert result.stderr.endswith("\nlast")
        assert 1 << 20 < len(result.stderr) <= output.STDERR_BYTES + 1000

    def test_a_line_without_end_comes_in_pieces(self, runner: CommandRunner) -> None:
        seen: list[str] = []
        runner.run(sh("yes | tr -d '\\n' | head -c 200000 >&2"), on_line=seen.append, deadline=Deadline.after(60))
        assert "".join(seen) == "y" * 200000
        assert max(map(len, seen)) == output.LINE_BYTES

    @pytest.fixture
    def interruption(self) -> Iterator[None]:
        """SIGUSR1 interrupts this process, as Ctrl-C would."""

        def interrupt(*_: object) -> None:
            raise Interrupted("now")

        before = signal.signal(signal.SIGUSR1, interrupt)
        yield
        signal.signal(signal.SIGUSR1, before)
