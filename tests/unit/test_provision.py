"""Provision an engine, on machines made of a few files."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.errors import CommandFailed, DeadlinePassed, HostError, InputError
from mailstack.host.machine import LOCAL, ExitCode, Facts, LocalMachine, facts_of
from mailstack.host.provision import Step, command_line, plan, provision
from mailstack.model import Command, Result
from mailstack.runner.local import LineSink, Local
from mailstack.target.target import LocalTarget
from tests.unit.fakes import OK, FakeRunner


def commands(facts: Facts) -> list[str]:
    """Return the plan's commands, each as one line."""
    return [" ".join(step.command.argv) for step in plan(facts)]


# ── the plan ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_an_engine_answers_there_is_nothing_to_do() -> None:
    assert plan(Facts(answers=True, root=False, is_debian=False)) == []


def test_on_a_bare_debian_the_engine_is_installed_and_started() -> None:
    update, install, start = plan(Facts())
    assert update.may_fail
    assert not install.may_fail
    assert install.command.argv[-4:] == ("-y", "--no-install-recommends", "docker.io", "iptables")
    assert install.command.environment["DEBIAN_FRONTEND"] == "noninteractive"
    assert start.command.argv == ("dockerd",)
    assert start.log == Path("/var/log/mailstack-dockerd.log")


def test_systemd_starts_the_engine_where_it_runs() -> None:
    start = plan(Facts(systemd=True))[-1]
    assert start.command.argv == ("systemctl", "enable", "--now", "docker")
    assert start.log is None


def test_an_installed_engine_is_only_started() -> None:
    assert commands(Facts(installed=True)) == ["dockerd"]


def test_an_engine_that_is_starting_is_only_waited_for() -> None:
    assert plan(Facts(installed=True, daemon=4711)) == []


def test_an_installed_engine_is_started_on_any_distribution() -> None:
    assert commands(Facts(installed=True, is_debian=False, distribution="Fedora Linux 43")) == ["dockerd"]


def test_elsewhere_than_on_debian_the_error_names_what_to_install() -> None:
    with pytest.raises(HostError, match="Fedora Linux 43") as caught:
        plan(Facts(is_debian=False, distribution="Fedora Linux 43"))
    assert "iptables" in caught.value.remedy


def test_without_root_every_command_goes_through_sudo_which_never_asks() -> None:
    lines = commands(Facts(root=False, sudo=True, user=1000))
    assert all(line.startswith("sudo -n env DEBIAN_FRONTEND=noninteractive PATH=") for line in lines)


def test_the_log_of_an_engine_started_through_sudo_belongs_to_the_user_who_opens_it() -> None:
    making, start = plan(Facts(root=False, sudo=True, installed=True, user=1000))
    assert "-o 1000 /dev/null /var/log/mailstack-dockerd.log" in " ".join(making.command.argv)
    assert start.log


def test_with_neither_root_nor_sudo_the_remedy_is_the_commands_to_run() -> None:
    with pytest.raises(HostError) as caught:
        plan(Facts(root=False))
    assert (
        "--no-install-recommends docker.io iptables && (dockerd >> /var/log/mailstack-dockerd.log 2>&1 &)"
        in caught.value.remedy
    )


def test_an_engine_that_this_user_may_not_use_is_left_as_it_is() -> None:
    with pytest.raises(HostError, match="has no permission to use it") as caught:
        plan(Facts(denied=True, daemon=4711, root=False, sudo=True))
    assert "usermod -aG docker" in caught.value.remedy


def test_a_socket_that_a_dead_engine_left_does_not_keep_a_new_one_from_starting() -> None:
    assert commands(Facts(denied=True, installed=True, root=False, sudo=True))


def test_an_engine_elsewhere_that_is_silent_changes_nothing_here() -> None:
    with pytest.raises(HostError, match="no Docker engine answers at ssh://lab") as caught:
        plan(Facts(url="ssh://lab"))
    assert "DOCKER_HOST" in caught.value.remedy


# ── doing it ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Machine:
    """A root directory, and the events that can happen in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._server: socket.socket | None = None
        for folder in ("etc", "var/run", "var/log", "usr/sbin", "proc"):
            (root / folder).mkdir(parents=True)
        (root / "etc/os-release").write_text('PRETTY_NAME="Ubuntu 24.04"\nID=ubuntu\nID_LIKE=debian\n')

    def answer(self) -> None:
        """Make the engine answer from now on."""
        self._server = server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(self.root / "var/run/docker.sock"))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(64)
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")

        threading.Thread(target=serve, daemon=True).start()

    def run_dockerd(self, process: int = 4711) -> None:
        """Make a dockerd run, with or without an answer."""
        (self.root / "var/run/docker.pid").write_text(f"{process}\n")
        (self.root / "proc" / str(process)).mkdir()
        (self.root / "proc" / str(process) / "comm").write_text("dockerd\n")

    def close(self) -> None:
        """Stop the engine's answers."""
        if self._server:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Return an Ubuntu machine where root asks for an engine. Its path is short: that of a socket has at most 107
    bytes.
    """
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_HOST", LOCAL)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with tempfile.TemporaryDirectory() as name:
        made = Machine(Path(name))
        yield made
        made.close()


@pytest.mark.sockets
def test_a_running_engine_is_found_and_no_command_is_run(machine: Machine) -> None:
    machine.answer()
    runner, said = FakeRunner(), list[str]()
    provision(LocalMachine(LocalTarget(), runner, machine.root), said.append)
    assert runner.commands == []
    assert "nothing to do" in said[0]


@pytest.mark.sockets
def test_a_bare_machine_ends_with_an_engine_that_answers(machine: Machine) -> None:
    class Runner(FakeRunner):
        def detach(self, command: Command, log: Path):  # type: ignore[no-untyped-def]
            machine.answer()
            return super().detach(command, log)

    runner = Runner()
    provision(LocalMachine(LocalTarget(), runner, machine.root), lambda line: None)
    assert [command.argv[2] for command in runner.commands] == ["update", "install"]
    ((command, log),) = runner.detached
    assert command.argv == ("dockerd",)
    assert log == machine.root / "var/log/mailstack-dockerd.log"


@pytest.mark.sockets
def test_a_failing_package_source_does_not_matter_when_the_installation_succeeds(machine: Machine) -> None:
    def answer(command: Command) -> Result:
        if "update" in command.argv:
            return Result(100, "", "W: broken\nE: the source of somebody else does not answer")
        machine.run_dockerd()
        machine.answer()
        return OK

    said: list[str] = []
    provision(LocalMachine(LocalTarget(), FakeRunner(answer), machine.root), said.append)
    assert any("continuing: E: the source of somebody else" in line for line in said)


@pytest.mark.sockets
def test_a_failing_installation_shows_its_last_lines(machine: Machine) -> None:
    runner = FakeRunner(lambda command: Result(100, "", "E: Unable to locate package docker.io"))
    with pytest.raises(CommandFailed, match="exited with code 100") as caught:
        provision(LocalMachine(LocalTarget(), runner, machine.root), lambda line: None)
    assert "Unable to locate" in caught.value.details
    assert runner.detached == []


@pytest.mark.sockets
def test_an_engine_that_the_installation_started_is_not_started_again(machine: Machine) -> None:
    def answer(command: Command) -> Result:
        if "install" in command.argv:
            machine.run_dockerd()
            machine.answer()
        return OK

    runner = FakeRunner(answer)
    provision(LocalMachine(LocalTarget(), runner, machine.root), lambda line: None)
    assert runner.detached == []


@pytest.mark.sockets
def test_the_record_of_a_dead_engine_does_not_count(machine: Machine) -> None:
    machine.run_dockerd(1)
    (machine.root / "proc/1/comm").write_text("bash\n")
    (machine.root / "usr/sbin/dockerd").touch()
    runner = FakeRunner(ended=lambda: 1)
    with pytest.raises(HostError, match="exited right after"):
        provision(LocalMachine(LocalTarget(), runner, machine.root), lambda line: None)
    assert len(runner.detached) == 1


@pytest.mark.sockets
def test_an_engine_that_dies_at_its_start_is_reported_at_once_with_its_log(machine: Machine) -> None:
    (machine.root / "usr/sbin/dockerd").touch()
    (machine.root / "var/log/mailstack-dockerd.log").write_text("failed to start daemon: iptables not found\n")
    with pytest.raises(HostError, match="with code 1") as caught:
        provision(LocalMachine(LocalTarget(), FakeRunner(ended=lambda: 1), machine.root), lambda line: None)
    assert "iptables not found" in caught.value.details


@pytest.mark.sockets
def test_an_engine_that_stays_silent_is_waited_for_until_the_deadline(machine: Machine) -> None:
    machine.run_dockerd()
    with pytest.raises(DeadlinePassed, match=r"within 0\.2 s"):
        provision(LocalMachine(LocalTarget(), FakeRunner(), machine.root), lambda line: None, seconds=0.2)


def test_an_engine_that_was_killed_a_moment_before_is_started_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.run_dockerd()
    runner = FakeRunner()

    def asked(path: Path, seconds: float) -> tuple[bool, bool]:
        (machine.root / "var/run/docker.pid").unlink(missing_ok=True)  # it is gone while it is waited for
        return bool(runner.detached), False

    monkeypatch.setattr("mailstack.host.machine._ping", asked)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    provision(LocalMachine(LocalTarget(), runner, machine.root), lambda line: None)
    assert [command.argv for command, _ in runner.detached] == [("dockerd",)]


@pytest.mark.sockets
def test_a_user_without_sudo_is_told_what_root_must_run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: Command) -> Result:
        raise HostError("sudo: cannot be run: No such file or directory")

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HostError, match="needs root") as caught:
        provision(LocalMachine(LocalTarget(), FakeRunner(answer), machine.root), lambda line: None)
    assert "run as root: apt-get" in caught.value.remedy


def test_an_engine_that_answers_root_alone_is_told_from_one_whose_socket_is_being_made(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.run_dockerd()
    said = iter([(False, False), (False, True), (True, False)])
    monkeypatch.setattr("mailstack.host.machine._ping", lambda path, seconds: next(said))
    provision(LocalMachine(LocalTarget(), FakeRunner(), machine.root), lambda line: None)
    said = iter([(False, False), (False, True), (False, True)])
    with pytest.raises(HostError, match="has no permission to use it"):
        provision(LocalMachine(LocalTarget(), FakeRunner(), machine.root), lambda line: None)


# ── on another host ────────────────────────────────────────────────────────────────────────────────────────────────

SAID = '1000\n\n\nyes\nyes\nPRETTY_NAME="Ubuntu 24.04"\nID=ubuntu\nID_LIKE=debian\n'


def test_the_facts_of_another_host_are_what_its_shell_tells() -> None:
    assert facts_of(SAID, LOCAL, denied=False) == Facts(
        systemd=True, distribution="Ubuntu 24.04", root=False, sudo=True, user=1000
    )
    assert facts_of("0\n812\nyes\n\n\n", LOCAL, denied=True) == Facts(
        denied=True, installed=True, daemon=812, is_debian=False, distribution="its system"
    )


def test_a_shell_that_tells_something_else_is_an_error() -> None:
    with pytest.raises(HostError, match="did not report") as caught:
        facts_of("This account is not available.\n", LOCAL, denied=False)
    assert "not available" in caught.value.details


class Far:
    """A machine over SSH, whose engine answers after it was started."""

    name = "far"

    def __init__(self, said: str = SAID) -> None:
        self.done: list[str] = []
        self._said = said

    def facts(self) -> Facts:
        return facts_of(self._said, LOCAL, denied=False)

    def run(self, command: Command, on_line: LineSink | None = None) -> Result:
        self.done.append(command.argv[-1])
        return OK

    def start(self, command: Command, log: Path) -> ExitCode:
        self.done.append("start")
        return lambda: None

    def ping(self, seconds: float) -> tuple[bool, bool]:
        return bool(self.done), False

    def daemon(self) -> int | None:
        return None

    def tail(self) -> str:
        return ""


def test_what_is_to_be_done_on_another_host_is_shown_before_it_is() -> None:
    far, shown = Far(), list[str]()

    def agree(facts: Facts, steps: list[Step]) -> None:
        assert not far.done
        shown.extend(map(command_line, steps))

    provision(far, lambda line: None, confirm=agree)
    assert shown[0] == "sudo apt-get -oDPkg::Lock::Timeout=120 update"
    assert shown[-1] == "sudo systemctl enable --now docker"
    assert far.done == ["update", "iptables", "docker"]


def test_what_is_not_agreed_to_is_not_done() -> None:
    def agree(facts: Facts, steps: list[Step]) -> None:
        raise InputError("nothing was done")

    far = Far()
    with pytest.raises(InputError):
        provision(far, lambda line: None, confirm=agree)
    assert far.done == []


def test_an_error_of_another_host_begins_with_its_name() -> None:
    with pytest.raises(HostError) as caught:
        provision(Far("1000\n\n\n\n\nID=debian\n"), lambda line: None)
    assert caught.value.message.startswith("far: installing or starting the Docker engine needs root")


# ── the runner's part ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.process
def test_what_is_detached_has_a_session_and_a_log_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "echo out; echo err >&2; echo $$; cut -d ' ' -f 6 /proc/$$/stat; exit 3"  # proc(5): 6 is the session
    ended = Local().detach(Command(("sh", "-c", script)), log)
    waited = threading.Event()
    while ended() is None:
        waited.wait(0.01)
    assert ended() == 3
    out, err, process, session = log.read_text().splitlines()
    assert (out, err) == ("out", "err")
    assert session == process


@pytest.mark.process
def test_what_cannot_be_detached_is_a_host_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be run"):
        Local().detach(Command(("no-such-daemon",)), tmp_path / "log")
    with pytest.raises(HostError, match="no-such-folder"):
        Local().detach(Command(("true",)), tmp_path / "no-such-folder" / "log")
