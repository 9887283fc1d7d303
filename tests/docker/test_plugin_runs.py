"""A run of pytest and its own lab: workers share it, overridden decisions hold, nothing is left behind."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mailstack import state
from mailstack.lab import homes
from mailstack.lab.running import RunningLab
from mailstack.model import Deadline
from tests import engines
from tests.docker.conftest import Labs
from tests.docker.suites import PLUGIN, SEND, Run

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.docker


def test_sixty_tests_with_four_workers_share_one_lab_and_leave_nothing(run: Run) -> None:
    result = run(
        SEND
        + """
    import os, pathlib

    @pytest.mark.parametrize("number", range(60))
    def test_own(number, mailbox, smtp_settings, mailstack_lab, request):
        send(smtp_settings, mailbox.address, f"number {number}.")
        message = mailbox.wait_for_message(subject=f"number {number}.")
        assert message.to == [mailbox.address] and mailbox.messages() == [message]
        path = pathlib.Path(__file__).with_name(f"seen-{request.config.workerinput['workerid']}")
        path.write_text(mailstack_lab.name)
""",
        "-n",
        "4",
    )
    result.assert_outcomes(passed=60)
    seen = [path.read_text() for path in Path.cwd().glob("seen-*")]
    assert len(seen) == 4 and len(set(seen)) == 1 and seen[0].startswith("pytest-")
    nothing_is_left(seen[0])


def nothing_is_left(lab: str) -> None:
    """Check that nothing is left, at once or after the guard that removes the lab for the last worker has ended."""
    deadline = Deadline.after(15)
    while left := [*engines.here().leftovers(lab, state.owner()), *homes.current(engines.here()).path.glob(f"{lab}*")]:
        assert not deadline.passed(), left
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("workers", "before"),
    [
        ([], []),
        (["-n", "2"], []),
        # As by a script's `&`, nohup(1) or cron(8): execnet ends workers by SIGINT.
        (["-n", "2"], ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]),
    ],
    ids=["alone", "workers", "workers, with SIGINT ignored"],
)
def test_a_run_that_is_killed_leaves_nothing(pytester: pytest.Pytester, workers: list[str], before: list[str]) -> None:
    pytester.makepyfile(
        """
        import pathlib, threading, pytest

        @pytest.mark.parametrize("number", range(2))
        def test_endless(number, mailbox, mailstack_lab):
            pathlib.Path("ready.tmp").write_text(mailstack_lab.name)
            pathlib.Path("ready.tmp").rename("ready")
            threading.Event().wait()
        """
    )
    words = [*before, sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider", *workers]
    process = subprocess.Popen(words, cwd=pytester.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ready, deadline = pytester.path / "ready", Deadline.after(60)
        while not ready.exists():
            assert process.poll() is None and not deadline.passed()
            time.sleep(0.02)
        lab = ready.read_text()
        assert len(RunningLab(lab, engines.here()).services()) == 3
    finally:
        process.kill()
        process.wait()
    nothing_is_left(lab)


def test_a_run_that_is_interrupted_as_soon_as_its_lab_is_up_leaves_nothing(pytester: pytest.Pytester, run: Run) -> None:
    result = run(
        "def test_it(mailstack_lab): pass",
        conftest="""
        import signal
        from pathlib import Path
        from mailstack.lab import up as lab

        ensure = lab.ensure

        def interrupted(engine, wanted, *others):
            ensure(engine, wanted, *others)
            Path("lab").write_text(wanted.name)
            signal.raise_signal(signal.SIGINT)

        lab.ensure = interrupted
        """,
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    nothing_is_left((pytester.path / "lab").read_text())


def test_decisions_are_fixtures_and_a_lab_can_be_kept(run: Run, labs: Labs) -> None:
    source = (
        SEND
        + """
    def test_own(mailbox, mailbox_factory, smtp_settings, mailstack_lab, mailstack_checks):
        import time
        assert 800 < int(mailstack_lab.state.expires) - time.time() <= 900
        shop = mailbox_factory("Kundin Nr. 1", domain="shop.test")
        assert shop.address.startswith("kundin-nr-1-") and shop.address.endswith("@shop.test")
        send(smtp_settings, shop.address, "hello", sender="noreply@shop.test")
        shop.wait_for_message(sender="noreply@shop.test")
        assert {result.verdict for result in mailstack_checks("tls")} == {"pass"}
        with pytest.raises(AssertionError, match="arrived for .* within 50 ms"):
            mailbox.wait_for_message()
        pytest.fail(mailstack_lab.name)
"""
    )
    conftest = """
    import pathlib, pytest

    @pytest.fixture(scope="session")
    def mailstack_ttl():
        return 900

    @pytest.fixture(scope="session")
    def mailstack_patience():
        return 0.05

    @pytest.fixture(scope="session")
    def mailstack_overlays(tmp_path_factory):
        overlay = tmp_path_factory.mktemp("lab") / "shop.yaml"
        overlay.write_text("x-mailstack: {domains: {shop.test: {}}}")
        return [overlay]
    """
    result = run(source, "--mailstack-keep", conftest=conftest)
    result.assert_outcomes(failed=1)
    (name,) = set(re.findall(r"Failed: (pytest-\w+)", result.stdout.str()))
    assert [service.state for service in RunningLab(name, engines.here()).services()] == ["running"] * 3
    labs.take_over(name)
    labs.down(name)
