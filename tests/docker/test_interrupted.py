"""An `up` that is killed, interrupted or fails: what is left of it, and of the labs that existed before."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from mailstack.engine import projects
from mailstack.lab import homes, tools
from mailstack.lab.down import remove
from mailstack.model import Deadline
from tests import engines
from tests.docker.bad import BROKEN, MAILSTACK, Outcome, Traces, alone, read_up_to, run

pytestmark = pytest.mark.docker

# Parts of an `up`; the kill matrix (tests/kills) has random ones.
MOMENTS = (0.2, 0.6, 0.9)

# The names of this run's labs: another run may be at work on the same engine.
OTHERS, WARM, KILLED, CUT, FAILING = (
    f"{stem}-{secrets.token_hex(3)}" for stem in ("others", "warm", "killed", "cut", "failing")
)

# A lab's containers with their start times, and everything that exists of it.
State = tuple[dict[str, str], set[str]]


@pytest.fixture(scope="module")
def others() -> Iterator[Callable[[], State]]:
    """Yield a function that returns the state of another owner's lab on this engine; it must always be the same."""
    with alone("others") as traces:
        assert run(["up", "-n", OTHERS]).code == 0
        environment = {"MAILSTACK_RUNTIME_DIR": str(traces.directory), "MAILSTACK_OWNER": traces.owner}
        yield lambda: (traces.containers(), traces.all())
        assert run(["status", "-n", OTHERS], environment).code == 0


@pytest.fixture(scope="module")
def traces(others: Callable[[], State]) -> Iterator[Traces]:
    """Yield an owner and a runtime directory for this module."""
    with alone("cut") as found:
        yield found


@pytest.fixture(scope="module")
def seconds(traces: Traces) -> float:
    """Return how long an `up` takes here with existing images, in seconds."""
    begun = time.monotonic()
    assert run(["up", "-n", WARM]).code == 0
    taken = time.monotonic() - begun
    assert run(["down", "-n", WARM]).code == 0
    assert traces.all() == set()
    return taken


@pytest.fixture
def nothing_before(traces: Traces) -> Iterator[Traces]:
    """Check that a test starts with nothing and leaves nothing."""
    traces.remove()
    assert traces.all() == set()
    yield traces
    traces.remove()


# ── killed ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("moment", MOMENTS, ids=[f"{moment:.0%}" for moment in MOMENTS])
def test_after_a_kill_at_any_moment_down_all_leaves_nothing_but_others_labs(
    moment: float, seconds: float, nothing_before: Traces, others: Callable[[], State]
) -> None:
    before = others()
    with subprocess.Popen((MAILSTACK, "up", "-n", KILLED), stderr=subprocess.PIPE) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment * seconds * 0.95)
        process.kill()
    # 0: this one was done sooner than the one by which the moments are measured; `down` then has all of it to remove.
    assert process.returncode in (-signal.SIGKILL, 0)
    outcome = run(["down", "--all"])
    assert outcome.code == 0, outcome
    assert nothing_before.all() == set()
    # The guard, which was about to do the same, has seen that the lab is gone, and ends.
    deadline = Deadline.after(2)
    while (processes := nothing_before.processes()) and not deadline.passed():
        time.sleep(0.02)
    assert processes == {}
    assert others() == before


# ── interrupted ────────────────────────────────────────────────────────────────────────────────────────────────────


def _interrupt(number: signal.Signals, at: str, later: float, *options: str, again: str = "") -> Outcome:
    """Signal an `up` `later` seconds after it prints `at`, and again after it prints `again`."""
    with subprocess.Popen(
        (MAILSTACK, "up", "-n", CUT, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said = read_up_to(at, process)
        if later:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(later)
        process.send_signal(number)
        if again:
            said += read_up_to(again, process)
            for other in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                process.send_signal(other)
                with contextlib.suppress(subprocess.TimeoutExpired):  # it may have tidied up by then
                    process.wait(0.05)
        out, err = process.communicate(timeout=90)
    return Outcome(process.returncode, out, said + err)


@pytest.mark.parametrize(
    ("number", "at", "later"),
    [
        (signal.SIGTERM, "reading the definition", 0),
        (signal.SIGINT, "starting the containers", 0),
        (signal.SIGTERM, "starting the containers", 0.3),
        (signal.SIGINT, "sending the mail", 0),
    ],
)
def test_an_interrupted_up_ends_with_130_and_leaves_nothing(
    number: signal.Signals, at: str, later: float, nothing_before: Traces
) -> None:
    says = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated (SIGTERM)"}[number]
    outcome = _interrupt(number, at, later)
    assert (outcome.code, outcome.messages, outcome.out) == (130, [f"mailstack: {says}"], ""), outcome
    assert outcome.rest == []
    assert nothing_before.all() == set()


def test_who_presses_ctrl_c_again_does_not_stop_the_tidying_up(nothing_before: Traces) -> None:
    outcome = _interrupt(signal.SIGINT, "starting the containers", 0.2, again="removing what was created")
    assert (outcome.code, outcome.messages) == (130, ["mailstack: interrupted"])
    assert nothing_before.all() == set()


def test_what_is_to_be_kept_is_kept_when_up_is_interrupted(nothing_before: Traces) -> None:
    outcome = _interrupt(signal.SIGINT, "sending the mail", 0, "--keep")
    assert (outcome.code, outcome.messages) == (130, ["mailstack: interrupted"])
    assert "it was kept" in outcome.err
    assert len(nothing_before.containers()) == 3
    assert run(["down", "-n", CUT]).code == 0
    assert nothing_before.all() == set()


# ── failing ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """Return an overlay that Compose accepts and Dovecot does not."""
    file = tmp_path / "broken.yaml"
    file.write_text(BROKEN)
    return str(file)


def test_a_failing_up_says_which_service_failed_with_its_last_lines_and_leaves_nothing(
    broken: str, nothing_before: Traces
) -> None:
    outcome = run(["up", "-n", FAILING, "-f", broken])
    assert (outcome.code, len(outcome.messages), outcome.out) == (1, 1, "")
    assert "; dovecot exited with code " in outcome.messages[0]
    assert [line for line in outcome.err.splitlines() if line.startswith("  dovecot | ") and "no_such_setting" in line]
    assert nothing_before.all() == set()


def test_a_failing_up_keeps_what_it_made_when_asked_to(broken: str, nothing_before: Traces) -> None:
    outcome = run(["up", "-n", FAILING, "--keep", "-f", broken])
    assert (outcome.code, len(outcome.messages)) == (1, 1)
    assert "it was kept: mailstack logs -n failing" in outcome.err
    assert len(nothing_before.containers()) == 3
    assert "no_such_setting" in run(["logs", "-n", FAILING, "dovecot"]).out
    assert run(["down", "-n", FAILING]).code == 0
    assert nothing_before.all() == set()


# ── down ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_down_of_a_lab_that_is_not_there_is_done(nothing_before: Traces) -> None:
    outcome = run(["down", "-n", "absent"])
    assert (outcome.code, outcome.out, outcome.err) == (0, "nothing to remove\n", "")
    assert run(["down", "--all"]).code == 0
    assert nothing_before.all() == set()


def test_what_the_engine_is_still_making_for_a_compose_that_was_ended_goes_too(traces: Traces) -> None:
    """The engine finishes what it was asked for; here it is somebody else who asks, half a second after the end."""
    name = f"late-{secrets.token_hex(3)}"
    network = f"{projects.project_name(name)}_mail"
    directory = homes.directory(engines.here(), name)
    directory.make()
    made: list[str] = []

    def make() -> None:
        labels = {"mailstack.lab": name, "mailstack.owner": traces.owner}
        made.append(docker.from_env().api.create_network(network, labels=labels)["Id"])

    engine = threading.Timer(0.5, make)
    engine.start()
    remove(tools.of(engines.here(), lambda line: None), directory, late=frozenset({f"network {network}"}))
    engine.join()
    assert (len(made), traces.all()) == (1, set())
