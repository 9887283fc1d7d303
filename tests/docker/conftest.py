"""Labs for tests on a real engine, each with a unique name, and all removed at the end."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import docker
import pytest

from mailstack.definition import bundled
from mailstack.errors import CheckFailed, DeadlinePassed
from mailstack.images import base, build
from mailstack.lab import down
from mailstack.lab import up as lab
from mailstack.lab.running import RunningLab
from mailstack.model import SERVICES
from mailstack.runner.local import Local
from tests import engines
from tests.docker import nested
from tests.docker.remote import bare
from tests.docker.suites import PLUGIN, Run


def _quiet(_: str) -> None:
    """Ignore progress messages: tests show none."""


class Labs:
    """Creates labs with unique names, and removes the remaining ones at the end."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def new_name(self, stem: str) -> str:
        """Return a name that no other lab has. A lab with this name is removed at the end in any case."""
        name = f"{stem[:20].strip('-')}-{secrets.token_hex(4)}"
        self._names.append(name)
        return name

    def take_over(self, name: str) -> None:
        """Register a lab that was created elsewhere, to be removed at the end."""
        self._names.append(name)

    def up(self, name: str, overlays: Sequence[Path] = ()) -> RunningLab:
        """Bring a lab up, proven with two mails."""
        lab.up(engines.here(), lab.Request(name, tuple(overlays)), _quiet)
        return RunningLab(name, engines.here())

    def up_unproven(self, name: str, overlays: Sequence[Path] = ()) -> RunningLab:
        """Bring a lab up whose definition does not let it be proven, as with --keep."""
        request = lab.Request(name, tuple(overlays), keep=True, patience=2)
        with pytest.raises((CheckFailed, DeadlinePassed)):
            lab.up(engines.here(), request, _quiet)
        return RunningLab(name, engines.here())

    def down(self, name: str) -> None:
        """Remove a lab completely."""
        down.down(engines.here(), name, _quiet)
        self._names.remove(name)

    @contextlib.contextmanager
    def one(
        self,
        stem: str,
        overlays: Sequence[Path] = (),
        prepare: Callable[[str], None] = lambda name: None,
        *,
        proven: bool = True,
    ) -> Iterator[RunningLab]:
        """Yield a lab within `with`; `prepare` is called with its name before `up`. Not `proven`: see `up_unproven`."""
        name = self.new_name(stem)
        try:
            prepare(name)
            yield self.up(name, overlays) if proven else self.up_unproven(name, overlays)
        finally:
            self.down(name)

    def close(self) -> None:
        """Remove the remaining labs, and continue after an error."""
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
    """Yield labs of a new owner with a separate runtime directory; remove all at the end."""
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
    """Yield a maker of labs for the session."""
    with own() as made:
        yield made


@pytest.fixture(scope="session")
def images(labs: Labs) -> list[str]:
    """Return the images of this checkout."""
    return built_images(labs)


def built_images(labs: Labs) -> list[str]:
    """Return the images of this checkout. Where the engine lacks one, a lab has all of them built."""
    tag = build.content_tag(bundled.stack())
    references = [f"mailstack/{service}:{tag}" for service in SERVICES]
    if not set(references) <= {name for image in docker.from_env().images.list() for name in image.tags}:
        with labs.one("images"):
            pass
    return references


@pytest.fixture(scope="session")
def for_remote(images: list[str]) -> None:
    """Build the parts of machines for SSH tests, and the images to send to them. Skip unless run as root."""
    if os.geteuid() != 0:
        pytest.skip("a nested engine needs root on this host")
    base.ensure_base(engines.here(), Local(), _quiet)
    nested.build(nested.REMOTE)


@pytest.fixture(scope="module")
def machine(for_remote: None) -> Iterator[nested.Machine]:
    """Yield a bare machine that is reached over SSH and has the images of this host."""
    with bare() as made:
        yield made


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Return a function that runs a suite in a separate process, as its author would. The module needs `pytester`."""

    def run(source: str, *options: str, conftest: str = "") -> pytest.RunResult:
        pytester.makepyfile(test_suite=textwrap.dedent(source))
        if conftest:
            pytester.makeconftest(textwrap.dedent(conftest))
        return pytester.runpytest_subprocess(*PLUGIN, "-p", "no:cacheprovider", *options, timeout=300)

    return run


@pytest.fixture
def on_lab(run: Run, lab: RunningLab) -> Run:
    """Return a function that does so on the lab that the module's tests share."""
    return lambda source, *options, **more: run(source, "--mailstack-name", lab.name, *options, **more)
