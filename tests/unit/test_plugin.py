"""The pytest plugin: suites of its users run in this process, on an engine in memory and a mail server of the test."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import ModuleType

import pytest

from mailstack import checks, plugin
from mailstack.checks import Check
from mailstack.config import files
from mailstack.engine.engine import Engine
from mailstack.lab import tools
from mailstack.lab.up import Request
from mailstack.model import Result
from mailstack.testing import run_lab
from tests.unit.fake_engine import MemoryApi
from tests.unit.fakes import OK
from tests.unit.mail_server import serving
from tests.unit.world import NAME, WHOLE, World

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.sockets

Suite = Callable[..., pytest.RunResult]


class Given:
    """Gives a run of pytest its engine, if there is one, and keeps the modules that it has loaded."""

    def __init__(self, engine: Engine | None, modules: dict[str, ModuleType]) -> None:
        self._engine, self._modules = engine, modules

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Put the engine where the plugin looks for it."""
        if self._engine:
            config.stash[plugin._ENGINE] = self._engine

    def pytest_unconfigure(self) -> None:
        """Note the modules, which pytester drops then."""
        self._modules.update({name: each for name, each in sys.modules.items() if not name.startswith("test_")})


@pytest.fixture
def modules() -> Iterator[dict[str, ModuleType]]:
    """Yield modules that stay loaded after pytester has dropped them: those of cryptography cannot be loaded twice."""
    loaded: dict[str, ModuleType] = {}
    yield loaded
    sys.modules.update({**loaded, **sys.modules})


@pytest.fixture
def containers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Have programs in containers repeat each line, as that for accounts does; yield the programs that were run."""
    ran: list[str] = []
    with contextlib.ExitStack() as stack:

        def repeat(far: socket.socket) -> None:
            with far, far.makefile("rb") as lines, contextlib.suppress(OSError):
                for line in lines:
                    far.sendall(line)

        def stream(engine: Engine, container: str, argv: Sequence[str], **_: object) -> socket.socket:
            near, far = socket.socketpair()
            ran.append(" ".join(argv))
            thread = threading.Thread(target=repeat, args=(far,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(near.close)
            return near

        def execute(api: MemoryApi, container: str, argv: Sequence[str], **_: object) -> Result:
            ran.append(" ".join(argv))
            return OK

        monkeypatch.setattr(Engine, "stream", stream)
        monkeypatch.setattr(MemoryApi, "execute", execute)
        yield ran


@pytest.fixture
def suite(
    modules: dict[str, ModuleType],
    pytester: pytest.Pytester,
    world: World,
    containers: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Suite:
    """Return a function that runs a suite with options, on the engine in memory."""
    monkeypatch.setattr(tools, "of", lambda engine, progress: world.tools)
    monkeypatch.setattr(run_lab, "Local", lambda: world.runner)

    def run(source: str, *options: str, given: bool = True) -> pytest.RunResult:
        pytester.makepyfile(source)
        added = Given(world.tools.engine if given else None, modules)
        words = ("-p", "no:xdist", "-p", "no:cacheprovider", *options)
        result = pytester.runpytest_inprocess(*words, plugins=[added])
        sys.modules.update({**modules, **sys.modules})
        return result

    return run


@pytest.fixture
def served(standing: World) -> Iterator[World]:
    """Yield a world with a running lab, for which a mail server answers."""
    with serving(standing.directory.files / "postfix.pem") as server:
        found = standing.directory.load()
        assert found
        standing.directory.save(replace(found, ports={**found.ports, **server.ports}))
        yield standing


MAILBOXES = """
    def test_one(mailbox, mailbox_factory):
        assert mailbox.address.startswith("one-") and mailbox_factory("shop").address.startswith("shop-")
    def test_other(mailbox, mailstack_lab):
        assert mailstack_lab.state.expires.isdigit() and mailbox.address.endswith("@example.com")
"""


def test_a_run_brings_up_a_lab_of_its_own_for_all_its_tests_and_removes_it(suite: Suite, world: World) -> None:
    suite(MAILBOXES).assert_outcomes(passed=2)
    assert (len(world.proved), world.api.all(), world.home.path.exists()) == (1, set(), False)
    assert "mailstack.lab.guard users pytest-" in " ".join(world.runner.released[0].argv)


def test_a_run_that_keeps_its_lab_leaves_it_as_it_is(suite: Suite, world: World) -> None:
    suite(MAILBOXES, "--mailstack-keep").assert_outcomes(passed=2)
    (name,) = world.home.labs()
    added = files.added(world.home.path / name / "files")
    assert name.startswith("pytest-") and len(added) == 3 and len(world.api.containers_) == 3
    assert not any("mailstack.lab.guard users" in " ".join(each.argv) for each in world.runner.released)


def test_decisions_are_fixtures_that_a_suite_overrides(suite: Suite, world: World) -> None:
    result = suite(
        f"""
        import pytest
        @pytest.fixture(scope="session")
        def mailstack_name():
            return "{NAME}"
        def test_it(mailstack_lab, mailstack_patience):
            assert mailstack_lab.name == "{NAME}" and mailstack_patience == 10
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"mailstack: there is no lab “{NAME}”*"])
    world.up(Request(NAME))
    suite("def test_it(mailstack_lab): pass", "--mailstack-name", NAME).assert_outcomes(passed=1)
    assert world.api.all() == WHOLE


def test_what_an_application_sends_is_received_and_its_mailbox_removed(
    suite: Suite, served: World, containers: list[str]
) -> None:
    result = suite(
        """
        from email.message import EmailMessage
        def test_it(mailbox, smtp_settings):
            mail = EmailMessage()
            mail["From"], mail["To"], mail["Subject"] = "shop@example.com", mailbox.address, "Welcome"
            with smtp_settings.connect() as session:
                session.send_message(mail)
            assert mailbox.wait_for_message(subject="Welcome").sender == "shop@example.com"
        """,
        *("--mailstack-name", NAME),
    )
    result.assert_outcomes(passed=1)
    assert files.added(served.directory.files) == [] and served.api.all() == WHOLE
    assert "accounts" in containers and "xargs -0 rm -rf --" in containers


def test_a_lab_without_a_user_for_all_addresses_has_no_settings(suite: Suite, standing: World) -> None:
    (standing.directory.files / "relay").unlink()
    result = suite("def test_it(smtp_settings): pass", "--mailstack-name", NAME)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"smtp_settings: lab “{NAME}” has no relay user"])


def test_the_report_of_a_wait_in_vain_has_the_labs_evidence(
    suite: Suite, served: World, pytester: pytest.Pytester
) -> None:
    source = """
        def test_it(mailbox):
            mailbox.wait_for_message(subject="Welcome", timeout=0)
        def test_other():
            assert False
    """
    result = suite(source, "--mailstack-name", NAME, "--mailstack-artifacts", "kept")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*mailstack: the mailbox of it-*", "*mailstack: the last lines of postfix*"])
    (folder,) = (pytester.path / "kept").iterdir()
    assert folder.name.endswith("test_it") and (folder / "postfix.log").exists()


def test_checks_run_by_their_ids_and_fail_with_their_evidence(
    suite: Suite, standing: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: object) -> str:
        raise checks.judging.Unmet("it is open")

    every = [Check("a.good", "is closed", "RFC", lambda bench: "closed"), Check("a.bad", "is shut", "RFC", broken)]
    monkeypatch.setattr(checks, "all_checks", lambda: every)
    result = suite(
        """
        def test_good(mailstack_checks):
            assert [each.evidence for each in mailstack_checks("a.good")] == ["closed"]
        def test_all(mailstack_checks):
            mailstack_checks()
        def test_unknown(mailstack_checks):
            mailstack_checks("b")
        """,
        *("--mailstack-name", NAME),
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        ["*1 of 2 checks failed", "*a.bad: is shut", "*it is open", "mailstack: unknown check*"]
    )


def test_a_lab_that_is_not_up_ends_the_run_before_its_first_test(suite: Suite) -> None:
    result = suite("def test_it(): pass", "--mailstack-name", NAME)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: mailstack: there is no lab “{NAME}”*"])


def test_only_tests_that_use_the_lab_fail_without_an_engine(suite: Suite) -> None:
    source = "def test_it(mailbox): pass\ndef test_other(): pass"
    result = suite(source, given=False)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["mailstack: no Docker engine answers at unix:///nowhere/docker.sock*"])
