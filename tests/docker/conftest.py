"""Labs for tests on a real engine: each under a name of its own, and none of them left behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mailstack.images import base
from mailstack.lab import down
from mailstack.lab import up as lab
from mailstack.lab.running import RunningLab
from mailstack.runner.local import Local
from tests import engines
from tests.docker import nested
from tests.docker.remote import bare
from tests.docker.suites import PLUGIN, Run


def _quiet(_: str) -> None:
    """What a lab says of its progress is no test's business."""


class Labs:
    """Makes labs with unique names, and removes what is left of them in the end."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def new_name(self, stem: str) -> str:
        """A name that no other lab has, and that is removed in the end whatever is made under it."""
        name = f"{stem[:20].strip('-')}-{secrets.token_hex(4)}"
        self._names.append(name)
        return name

    def take_over(self, name: str) -> None:
        """Have a lab that somebody else has made removed in the end, too."""
        self._names.append(name)

    def up(self, name: str, overlays: Sequence[Path] = ()) -> RunningLab:
        """Bring a lab up, proven with a mail."""
        lab.up(engines.here(), lab.Request(name, tuple(overlays)), _quiet)
        return RunningLab(name, engines.here())

    def down(self, name: str) -> None:
        """Remove a lab with all it has."""
        down.down(engines.here(), name, _quiet)
        self._names.remove(name)

    @contextlib.contextmanager
    def one(
        self, stem: str, overlays: Sequence[Path] = (), prepare: Callable[[str], None] = lambda name: None
    ) -> Iterator[RunningLab]:
        """A lab for as long as `with` lasts; `prepare` is called with its name before it is brought up."""
        name = self.new_name(stem)
        try:
            prepare(name)
            yield self.up(name, overlays)
        finally:
            self.down(name)

    def close(self) -> None:
        """Remove what is left: all that can be, also when one cannot."""
        errors = []
        for name in list(self._names):
            try:
                self.down(name)
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("labs could not be removed", errors)


@contextlib.contextmanager
def own() -> Iterator[Labs]:
    """Labs of an owner of their own, in a runtime directory of their own; all removed in the end."""
    session = f"tests-{secrets.token_hex(4)}"
    made = Labs()
    with pytest.MonkeyPatch.context() as patch:
        directory = Path(f"/dev/shm/mailstack-{session}")
        patch.setenv("MAILSTACK_RUNTIME_DIR", str(directory))
        patch.setenv("MAILSTACK_OWNER", session)
        try:
            yield made
        finally:
            try:
                made.close()
            finally:
                shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def labs() -> Iterator[Labs]:
    """Labs for as long as the session lasts."""
    with own() as made:
        yield made


@pytest.fixture(scope="session")
def for_remote(labs: Labs) -> None:
    """What machines that are reached over SSH are made of, and the images that they are sent, are here."""
    if os.geteuid() != 0:
        pytest.skip("a nested engine needs root on this host")
    base.ensure_base(engines.here(), Local(), _quiet)
    nested.build(nested.REMOTE)
    with labs.one("for-remote"):  # the images are there after that
        pass


@pytest.fixture(scope="module")
def machine(for_remote: None) -> Iterator[nested.Machine]:
    """A bare machine that is reached over SSH, with the images that this host has."""
    with bare() as made:
        yield made


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Runs a suite in a process of its own, as its author would; for modules that have the plugin `pytester`."""

    def run(source: str, *options: str, conftest: str = "") -> pytest.RunResult:
        pytester.makepyfile(test_suite=textwrap.dedent(source))
        if conftest:
            pytester.makeconftest(textwrap.dedent(conftest))
        return pytester.runpytest_subprocess(*PLUGIN, "-p", "no:cacheprovider", *options, timeout=300)

    return run


@pytest.fixture
def on_lab(run: Run, lab: RunningLab) -> Run:
    """The same on the lab that the module's tests share."""
    return lambda source, *options, **more: run(source, "--mailstack-name", lab.name, *options, **more)
