"""Nothing is left without `down`: any process that creates or uses a lab may be killed at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailstack.errors import EngineError
from mailstack.lab import homes
from tests import engines
from tests.docker.bad import BROKEN, MAILSTACK, Outcome, Traces, alone, run, until

pytestmark = pytest.mark.docker

# Parts of an `up` or `down`; the kill matrix (tests/kills) has random ones.
MOMENTS = (0.4, 0.9)

NAME, OTHER = (f"{stem}-{secrets.token_hex(3)}" for stem in ("guard", "other"))

# A process that uses the lab, and sees to it that it goes with its last user.
USER = f"""
import os, sys
from mailstack.engine.engine import Engine
from mailstack.lab import homes
from mailstack.lab.leases import Leases, guard
from mailstack.runner.local import Local
from mailstack.target import target
engine = Engine(target.local(os.environ))
there = homes.current(engine)
Leases(there, "{NAME}").acquire()
guard(engine.target, there, "{NAME}", Local())
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def traces() -> Iterator[Traces]:
    """Yield an owner and a runtime directory for this module."""
    with alone("guard") as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_before(traces: Traces) -> Iterator[None]:
    """Check that a test starts with nothing and leaves nothing."""
    assert (traces.all(), traces.processes()) == (set(), {})
    yield
    traces.remove()
    _gone(traces)


@dataclass(frozen=True)
class Seconds:
    """How long commands take here, with existing images."""

    up: float
    down: float


@pytest.fixture(scope="module")
def seconds(traces: Traces) -> Seconds:
    """Measure an `up` and a `down` that nothing kills."""
    begun = time.monotonic()
    assert run(["up", "-n", NAME]).code == 0
    up = time.monotonic() - begun
    assert run(["down", "-n", NAME]).code == 0
    return Seconds(up, time.monotonic() - begun - up)


def _gone(traces: Traces) -> None:
    """Wait until nothing is left: on the engine, of files, of processes."""
    until(lambda: not traces.processes() and not traces.all())
    assert (traces.all(), traces.processes()) == (set(), {})


def _end_guards(traces: Traces) -> None:
    """Kill the processes that would clean up."""
    guards = [pid for pid, line in traces.processes().items() if "mailstack.lab.guard" in line]
    assert guards
    for pid in guards:
        os.kill(pid, signal.SIGKILL)
    assert until(lambda: not set(guards) & set(traces.processes()))


@contextlib.contextmanager
def _user() -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that holds a lease on the lab, in a session of its own."""
    with subprocess.Popen([sys.executable, "-c", USER], stdin=-1, stdout=-1, start_new_session=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == b"\n"
            yield process
        finally:
            process.kill()


def _stale(environment: dict[str, str] | None = None) -> list[str]:
    outcome: Outcome = run(["down", "--stale", "--json"], environment)
    assert outcome.code == 0, outcome
    removed: list[str] = json.loads(outcome.out)["removed"]
    return removed


# ── up is killed ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("moment", MOMENTS, ids=[f"{moment:.0%}" for moment in MOMENTS])
def test_an_up_that_is_killed_leaves_nothing(moment: float, seconds: Seconds, traces: Traces) -> None:
    up = seconds.up
    while True:
        with subprocess.Popen((MAILSTACK, "up", "-n", NAME), stdout=-3, stderr=-3) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment * up)
            process.kill()
        found = homes.directory(engines.here(), NAME).load()
        if not found or not found.stays:
            break
        # The lab was proven sooner than the one by which the moments are measured.
        assert run(["down", "-n", NAME]).code == 0
        up *= 0.7
    _gone(traces)


@pytest.mark.parametrize("says", ["starting the containers", "sending the mail"])
def test_an_up_that_is_killed_when_it_says_what_it_does_leaves_nothing(says: str, traces: Traces) -> None:
    with subprocess.Popen((MAILSTACK, "up", "-n", NAME), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any(says in line for line in process.stderr)
        process.kill()
    _gone(traces)


def test_an_up_that_is_killed_while_the_engine_is_away_leaves_nothing_when_it_is_back(
    traces: Traces, tmp_path: Path
) -> None:
    socket = tmp_path / "docker.sock"
    socket.symlink_to(engines.url().removeprefix("unix://"))
    environment = {**os.environ, "DOCKER_HOST": f"unix://{socket}"}
    with subprocess.Popen((MAILSTACK, "up", "-n", NAME), stderr=-1, text=True, env=environment) as process:
        assert process.stderr
        assert any("sending the mail" in line for line in process.stderr)
        socket.unlink()
        process.kill()
    # The guard tries, and waits.
    assert not until(lambda: not traces.engine(), 1.5)
    socket.symlink_to(engines.url().removeprefix("unix://"))
    _gone(traces)


def test_a_failed_up_that_is_killed_as_it_tidies_up_leaves_nothing(traces: Traces, tmp_path: Path) -> None:
    overlay = tmp_path / "broken.yaml"
    overlay.write_text(BROKEN)
    argv = (MAILSTACK, "up", "-n", NAME, "-f", str(overlay))
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("removing what was created" in line for line in process.stderr)
        process.kill()
    _gone(traces)


def test_a_lab_that_is_up_is_watched_by_nobody_and_survives_an_up_that_is_killed(traces: Traces) -> None:
    assert run(["up", "-n", NAME]).code == 0
    assert until(lambda: not traces.processes(), 2)
    with subprocess.Popen((MAILSTACK, "up", "-n", NAME), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("starting the containers" in line for line in process.stderr)
        process.kill()
    assert until(lambda: not traces.processes())
    assert run(["up", "-n", NAME]).code == 0
    assert sum(thing.startswith("container") for thing in traces.engine()) == 3


# ── down is killed ─────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _going_down() -> Iterator[subprocess.Popen[str]]:
    """Yield a `down` that has begun to remove the lab."""
    with subprocess.Popen((MAILSTACK, "down", "-n", NAME), stdout=-3, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("removing lab" in line for line in process.stderr)
        yield process


@pytest.mark.parametrize("moment", MOMENTS, ids=[f"{moment:.0%}" for moment in MOMENTS])
def test_a_down_that_is_killed_is_finished(moment: float, seconds: Seconds, traces: Traces) -> None:
    assert run(["up", "-n", NAME]).code == 0
    with _going_down() as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment * seconds.down)
        process.kill()
    _gone(traces)


# Killed when the engine has nothing any more of the lab, and the secrets are still there.
KILLED_DOWN = f"""
import os, signal
from mailstack import state
from mailstack.engine.engine import Engine
from mailstack.lab import down
from mailstack.target import target
state.LabDirectory.remove = lambda self: os.kill(os.getpid(), signal.SIGKILL)
down.down(Engine(target.local(os.environ)), "{NAME}", lambda text: None)
"""


def test_a_down_that_is_killed_before_it_removes_the_secrets_leaves_none(traces: Traces) -> None:
    assert run(["up", "-n", NAME]).code == 0
    assert subprocess.run([sys.executable, "-c", KILLED_DOWN], check=False).returncode == -signal.SIGKILL
    _gone(traces)


def test_what_a_killed_down_left_whose_guard_was_killed_too_is_stale(traces: Traces) -> None:
    assert run(["up", "-n", NAME]).code == 0
    with _going_down() as process:
        assert until(lambda: any("lab.guard" in line for line in traces.processes().values()), 2, every=0.01)
        _end_guards(traces)
        process.kill()
    assert until(lambda: not traces.processes())  # its Compose may go on
    assert _stale() == [NAME]
    _gone(traces)


def test_a_down_that_can_write_no_file_goes_on_all_the_same(traces: Traces) -> None:
    """As where shared memory is full: who wants it free has to be able to."""
    assert run(["up", "-n", NAME]).code == 0
    full = ("prlimit", "--fsize=0", MAILSTACK, "down", "-n", NAME)
    done = subprocess.run(full, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"removed: {NAME}\n"), done.stderr
    _gone(traces)


def test_a_lab_that_is_brought_up_again_after_a_killed_down_stays(traces: Traces) -> None:
    assert run(["up", "-n", NAME]).code == 0
    with _going_down() as process:
        process.kill()
    assert run(["up", "-n", NAME]).code == 0
    assert until(lambda: not traces.processes())
    assert sum(thing.startswith("container") for thing in traces.engine()) == 3
    assert run(["check", "-n", NAME, "auth"]).code == 0


# ── its users ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_lab_stays_until_its_second_user_is_killed(traces: Traces) -> None:
    with _user() as first:
        assert run(["up", "-n", NAME]).code == 0
        there = traces.engine()
        with _user() as second:
            users = "mailstack.lab.guard users"
            assert until(lambda: sum(users in line for line in traces.processes().values()) == 1, 2)
            # All of its session, as at the end of a terminal: the guard is elsewhere.
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            assert not until(lambda: traces.engine() != there, 1)
            os.killpg(second.pid, signal.SIGKILL)
            second.wait()
            _gone(traces)


def test_a_user_that_is_killed_while_its_lab_comes_up_leaves_nothing(traces: Traces) -> None:
    code = USER.replace(
        "print(flush=True)",
        f'from mailstack.lab import up as lab; lab.up(engine, lab.Request("{NAME}"), lambda t: print(t, flush=True))',
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert any("starting the containers" in line for line in process.stdout)
        process.kill()
    _gone(traces)


# ── its time ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_lab_goes_by_itself_at_its_expiry(traces: Traces) -> None:
    assert run(["up", "-n", NAME, "--ttl", "3s"]).code == 0
    _gone(traces)


def test_who_waits_for_an_expiry_ends_as_soon_as_the_lab_is_gone(traces: Traces) -> None:
    assert run(["up", "-n", NAME, "--ttl", "1h"]).code == 0
    assert [line for line in traces.processes().values() if "mailstack.lab.guard" in line]
    assert run(["down", "-n", NAME]).code == 0
    assert until(lambda: not traces.processes(), 2)


# ── down --stale ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_has_expired_is_stale_but_no_other_lab_and_nobody_else_s(traces: Traces) -> None:
    expiring, standing = f"a-{NAME}", f"b-{NAME}"
    mine = {"MAILSTACK_OWNER": traces.owner, "MAILSTACK_RUNTIME_DIR": str(traces.directory)}
    with alone("stranger") as stranger:
        assert run(["up", "-n", OTHER, "--ttl", "5s"]).code == 0
        _end_guards(stranger)
        assert run(["up", "-n", expiring, "--ttl", "3s"], mine).code == 0
        _end_guards(traces)
        assert run(["up", "-n", standing], mine).code == 0
        theirs = stranger.all()
        found = homes.directory(engines.here(), OTHER).load()
        assert found and until(lambda: time.time() >= float(found.expires))
        assert _stale(mine) == [expiring]
        assert _stale(mine) == []
        assert stranger.all() == theirs
        assert {thing for thing in traces.all() if expiring in thing} == set()
        assert sum(thing.startswith("container") for thing in traces.engine()) == 3
        assert _stale() == [OTHER]
        assert stranger.all() == set()


def test_what_a_killed_up_left_whose_guard_was_killed_too_is_stale(traces: Traces) -> None:
    with subprocess.Popen((MAILSTACK, "up", "-n", NAME), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("sending the mail" in line for line in process.stderr)
        _end_guards(traces)
        process.kill()
    assert _stale() == [NAME]
    _gone(traces)


def test_what_killed_users_left_whose_guard_was_killed_too_is_stale(traces: Traces) -> None:
    with _user() as user:
        assert run(["up", "-n", NAME]).code == 0
        assert _stale() == []
        _end_guards(traces)
        user.kill()
    assert _stale() == [NAME]
    _gone(traces)


def test_files_of_a_lab_that_has_nothing_on_the_engine_are_stale(traces: Traces) -> None:
    assert run(["up", "-n", NAME]).code == 0
    engine = engines.here()
    while left := engine.leftovers(NAME, traces.owner):
        for thing in left:
            with contextlib.suppress(EngineError):  # a network or a volume in use: its container goes first
                engine.remove(thing)
    assert (traces.engine(), bool(traces.files())) == (set(), True)
    assert _stale() == [NAME]
    assert traces.all() == set()


def test_a_lab_that_is_just_coming_up_is_not_stale(traces: Traces) -> None:
    with subprocess.Popen((MAILSTACK, "up", "-n", NAME), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("starting the containers" in line for line in process.stderr)
        assert _stale() == []
        process.stderr.read()
    assert process.returncode == 0


def test_all_and_stale_together_are_a_mistake() -> None:
    outcome = run(["down", "--all", "--stale"])
    assert (outcome.code, outcome.messages) == (2, ["mailstack: --all removes what --stale does, and more"])
