"""The student at the sender's terminal: who they are, their mail, `sudo`, and a word about nc's newlines."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
from collections.abc import Iterator

import pytest

from mailstack.lab.running import RunningLab
from mailstack.model import Deadline, Result
from tests.docker.bad import MAILSTACK, run
from tests.docker.conftest import Labs

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def lab(labs: Labs) -> Iterator[RunningLab]:
    """Return a lab for all tests of this module."""
    with labs.one("student") as running:
        yield running


def as_student(lab: RunningLab, script: str, *, user: str = "student") -> Result:
    """Run a shell script on the sender as its user, in their home."""
    return lab.engine.execute(lab.service("sender").container, ["sh", "-c", f"cd; {script}"], user=user)


class Terminal:
    """`mailstack shell sender` in a terminal of 80 columns."""

    def __init__(self, lab: RunningLab) -> None:
        self.process, self.handle = pty.fork()
        if not self.process:
            os.environ["TERM"] = "dumb"
            os.execv(MAILSTACK, ["mailstack", "shell", "-n", lab.name, "sender"])
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.shown = self.until(r"\$ $")

    def until(self, pattern: str) -> str:
        """Return what is shown up to a pattern. Raises AssertionError after ten seconds, or at the end."""
        shown, deadline = "", Deadline.after(10)
        while not re.search(pattern, shown):
            ready, _, _ = select.select([self.handle], [], [], max(deadline.remaining(), 0))
            assert ready, shown
            # Without bash's bracketed paste, which is on whatever the terminal is.
            shown = re.sub(r"\x1b\[\?2004[hl]\r?|\r(?=\n)", "", shown + os.read(self.handle, 65536).decode())
        return shown

    def type(self, keys: str, pattern: str = r"[$#] $") -> str:
        """Type keys, and return what is shown up to a pattern, by default the next prompt."""
        os.write(self.handle, keys.encode())
        return self.until(pattern)

    def close(self) -> None:
        """End the terminal, as a closed window does."""
        os.close(self.handle)
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


@pytest.fixture
def terminal(lab: RunningLab) -> Iterator[Terminal]:
    """Yield a terminal at the shell's first prompt."""
    made = Terminal(lab)
    try:
        yield made
    finally:
        made.close()


# ── who and where ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_shell_is_the_students_and_a_banner_of_five_lines_says_what_there_is(terminal: Terminal) -> None:
    *banner, prompt = terminal.shown.splitlines()
    assert prompt == "student@sender:~$ "
    assert len(banner) <= 5 and max(map(len, banner)) < 80
    for word in ("nc -C postfix 25", "/var/log/mail.log", "sudo"):
        assert word in "\n".join(banner)
    assert "\n/home/student\n" in terminal.type("pwd\n")


def test_a_command_is_the_students_too_and_root_s_with_an_option(lab: RunningLab) -> None:
    assert run(["shell", "-n", lab.name, "sender", "id", "-un"]).out == "student\n"
    assert run(["shell", "-n", lab.name, "--root", "sender", "id", "-un"]).out == "root\n"
    assert run(["shell", "-n", lab.name, "postfix", "id", "-un"]).out == "root\n"


def test_a_mail_of_the_student_comes_from_their_address_and_is_read_by_mail(lab: RunningLab) -> None:
    sent = as_student(lab, "echo 'To myself.' | mail -s 'My first' -a 'Message-ID: <first@example.com>' student")
    assert sent.code == 0, sent
    assert run(["trace", "-n", lab.name, "first@example.com"]).code == 0
    headers = as_student(lab, "mail -H").stdout
    assert re.search(r"student@example\S+ .* My first$", headers, re.M), headers
    assert "To myself." in as_student(lab, "echo 'print 1' | mail").stdout
    # It is still there.
    assert "My first" in as_student(lab, "mail -H").stdout


# ── nc ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("command", "warned"), [("nc postfix 25", True), ("nc -C postfix 25", False)])
def test_nc_by_hand_says_at_once_that_bare_newlines_end_no_message(
    terminal: Terminal, command: str, warned: bool
) -> None:
    shown = terminal.type(f"{command}\n", r"220 .*\n")
    assert ("nc -C postfix 25\n" in shown.partition("\n")[2]) is warned
    terminal.type("\x03")


def test_nc_in_a_script_says_nothing(lab: RunningLab) -> None:
    assert as_student(lab, "echo QUIT | nc -N postfix 25").stderr == ""


# ── tools ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["nano", "vi", "less", "man", "telnet", "mutt", "mail", "swaks", "drill", "openssl"])
def test_the_tools_of_a_lesson_are_there(lab: RunningLab, name: str) -> None:
    assert as_student(lab, f"command -v {name}").code == 0


@pytest.mark.parametrize("page", ["5 postconf", "8 smtp", "1 mailq", "mail", "mutt", "nano", "nc", "telnet", "swaks"])
def test_manual_pages_of_what_is_there_are_shown(lab: RunningLab, page: str) -> None:
    shown = as_student(lab, f"man -P cat {page}")
    assert shown.code == 0 and "NAME\n" in shown.stdout, shown


def test_mutt_reads_the_students_mailbox_with_nothing_to_set_up(terminal: Terminal, lab: RunningLab) -> None:
    sent = run(["send", "-n", lab.name, "--to", "student@example.com", "--subject", "For mutt", "--body", "Read me."])
    assert sent.code == 0
    terminal.type("mutt\n", "For mutt")
    terminal.type("*\n", "Read me")
    terminal.type("x", "For mutt")
    terminal.type("x")


def test_a_look_up_of_a_name_of_the_lab_is_answered(lab: RunningLab) -> None:
    assert re.search(r"^postfix\.\s.*\sA\s10\.", as_student(lab, "drill postfix").stdout, re.M)


# ── sudo ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("sudo id -un", "root\n"),
        ("sudo -u postfix id -un", "postfix\n"),
        ("cd /tmp && sudo pwd", "/tmp\n"),
        ("sudo -i pwd", "/root\n"),
        ("sudo -s echo 'a  b' \"c'd\" '$HOME'", "a  b c'd $HOME\n"),
        ("sudo NEW=value sh -c 'echo $NEW $HOME $SUDO_USER'", "value /root student\n"),
        ("echo piped | sudo tee -a /tmp/added", "piped\n"),
        ("sudo sh -c 'echo to standard error >&2' 2>&1 >/dev/null", "to standard error\n"),
        ("sudo sh -c 'exit 7'; echo $?", "7\n"),
        ("sudo sh -c 'kill -9 $$'; echo $?", "137\n"),
        ("sudo no-such-command 2>&1; echo $?", "sudo: no-such-command: command not found\n1\n"),
        ("sudo -u nobody-here id 2>&1", "sudo: unknown user nobody-here\n"),
        ("sudo head -c 300000 /dev/zero | wc -c", "300000\n"),
    ],
)
def test_sudo_runs_a_command_with_the_students_streams_and_directory(lab: RunningLab, script: str, says: str) -> None:
    assert as_student(lab, script).stdout == says


def test_sudo_takes_ten_thousand_arguments(lab: RunningLab) -> None:
    assert as_student(lab, "sudo sh -c 'echo $#' sh $(seq 10000)").stdout == "10000\n"


def test_sudo_says_what_it_is(lab: RunningLab) -> None:
    said = as_student(lab, "sudo --help").stdout
    assert "not the sudo that Debian has" in said and "first process (init)" in said


def test_sudo_passes_signals_on(lab: RunningLab) -> None:
    script = (
        "mkfifo /tmp/up; sudo sh -c 'trap \"exit 9\" TERM; echo > /tmp/up; while :; do read -r _ < /tmp/up; done' & "
    )
    script += "read -r _ < /tmp/up; kill -TERM $!; wait $!; echo $?; rm -f /tmp/up"
    assert as_student(lab, script).stdout == "9\n"


def test_what_sudo_runs_ends_with_the_sudo_that_was_killed(lab: RunningLab) -> None:
    script = (
        "mkfifo /tmp/up2; sudo sh -c 'echo $$ > /tmp/up2; exec sleep 1000' & read -r inner < /tmp/up2; kill -9 $!; "
    )
    script += 'timeout 5 sh -c "while [ -e /proc/$inner ]; do sleep 0.05; done"; echo $?; rm -f /tmp/up2'
    assert as_student(lab, script).stdout == "0\n"


def test_nobody_but_the_student_may_use_sudo(lab: RunningLab) -> None:
    for user in ("nobody", "postfix"):
        refused = as_student(lab, "sudo id", user=user)
        assert (refused.code, refused.stdout) == (1, "") and "Permission denied" in refused.stderr


_WAITS = """perl -e '$| = 1; print "ready\\n"; sleep 1000'"""


def test_a_root_shell_has_its_own_terminal_and_ctrl_c_ends_what_runs_in_it(terminal: Terminal) -> None:
    assert "root@sender:~# " in terminal.type("sudo -i\n")
    terminal.type(f"{_WAITS}\n", r"\nready\n")
    assert "130\n" in terminal.type("\x03") + terminal.type("echo $?\n")
    assert "student@sender:~$ " in terminal.type("exit\n")
    terminal.type(f"sudo {_WAITS}\n", r"\nready\n")
    assert "130\n" in terminal.type("\x03") + terminal.type("echo $?\n")


def test_su_gives_a_root_shell(terminal: Terminal) -> None:
    assert "root@sender:/home/student# " in terminal.type("sudo su\n")
    assert "student@sender:~$ " in terminal.type("exit\n")


# ── the service ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("verb", "code", "says"),
    [
        ("restart", 0, "Starting the Postfix mail system"),
        ("reload", 0, "refreshing the Postfix mail system"),
        ("status", 0, "Active: active (running)"),
        ("is-active", 0, "active"),
        ("enable", 0, "started with this machine already"),
        ("stop", 0, "Stopping the Postfix mail system"),
        ("status", 3, "Active: inactive"),
        ("start", 0, "Starting the Postfix mail system"),
        ("edit", 1, "This machine has no systemd"),
    ],
)
def test_systemctl_does_with_postfix_what_it_says(lab: RunningLab, verb: str, code: int, says: str) -> None:
    done = as_student(lab, f"sudo systemctl {verb} postfix")
    assert done.code == code and says in done.stdout + done.stderr, done


def test_systemctl_names_sudo_and_knows_no_other_unit(lab: RunningLab) -> None:
    assert "sudo systemctl restart postfix" in as_student(lab, "systemctl restart postfix").stderr
    assert as_student(lab, "sudo systemctl restart apache2").code == 5
