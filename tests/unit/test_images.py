"""Base, tag, build and size of the images, without an engine."""

from __future__ import annotations

import gzip
import platform
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mailstack import images, layers, transfer
from mailstack.engine import Engine
from mailstack.errors import CommandFailed, EngineError, HostError
from mailstack.model import Command, Result
from mailstack.target import LocalTarget
from tests.unit.fakes import OK, FakeRunner

BUILD = Command(("docker-compose", "build"), {"MAILSTACK_TAG": "abc"})


class FakeEngine(Engine):
    """An engine that holds the images it was given, and can pull those of its registry."""

    def __init__(self, *held: str, registry: tuple[str, ...] = ()) -> None:
        super().__init__(LocalTarget("unix:///nowhere"))
        self.held = set(held)
        self.registry = registry
        self.imported: dict[str, list[str]] = {}
        self.processor = "amd64"

    def info(self) -> dict[str, Any]:
        return {"Architecture": platform.machine()}

    def platform(self) -> str:
        return self.processor

    def image_platform(self, reference: str) -> str:
        return self.processor if self.has_image(reference) else ""

    def image_layers(self, reference: str) -> list[tuple[str, int]]:
        return [(reference, 1 << 20)]

    def save(self, references: Sequence[str]) -> Iterator[bytes]:
        for reference in references:
            yield f"{reference}\n".encode()

    def load(self, archive: Iterable[bytes]) -> None:
        self.held |= set(gzip.decompress(b"".join(archive)).decode().split())

    def has_image(self, reference: str) -> bool:
        return reference in self.held

    def pull(self, reference: str) -> None:
        if reference not in self.registry:
            raise EngineError("no registry answers")
        self.held.add(reference)

    def import_image(self, tarball: Path, reference: str) -> None:
        with tarfile.open(tarball) as archive:
            self.imported[reference] = archive.getnames()
        self.held.add(reference)


def bootstraps(command: Command) -> Result:
    """Stands in for mmdebstrap: writes an archive to where it is told."""
    with tarfile.open(command.argv[-1], "w") as archive:
        archive.addfile(tarfile.TarInfo("./etc"))
    return Result(0, "", "I: done")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with mmdebstrap and Debian's keys."""
    program = tmp_path / "mmdebstrap"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(images, "_keyring", lambda tree: tree / "key.gpg")
    return tmp_path


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A folder with one build context."""
    (tmp_path / "stack" / "postfix").mkdir(parents=True)
    (tmp_path / "stack" / "postfix" / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "stack" / "postfix" / "entrypoint").write_text("#!/bin/sh\n")
    return tmp_path / "stack"


# ── the tag ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tag_stays_when_nothing_changes_but_times(stack: Path) -> None:
    before = images.content_tag(stack)
    (stack / "postfix" / "Dockerfile").touch()
    assert images.content_tag(stack) == before
    assert len(before) == 12


def test_the_tag_changes_with_a_files_bytes(stack: Path) -> None:
    before = images.content_tag(stack)
    (stack / "postfix" / "Dockerfile").write_text("FROM debian\n")
    assert images.content_tag(stack) != before


def test_the_tag_changes_with_a_files_name(stack: Path) -> None:
    before = images.content_tag(stack)
    (stack / "postfix" / "entrypoint").rename(stack / "postfix" / "start")
    assert images.content_tag(stack) != before


def test_the_tag_changes_when_a_file_becomes_executable(stack: Path) -> None:
    before = images.content_tag(stack)
    (stack / "postfix" / "entrypoint").chmod(0o755)
    assert images.content_tag(stack) != before


def test_the_tag_is_the_same_for_any_owner_and_umask(stack: Path) -> None:
    before = images.content_tag(stack)
    (stack / "postfix" / "Dockerfile").chmod(0o600)
    assert images.content_tag(stack) == before


# ── the base ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_base_that_is_there_is_taken_as_it_is() -> None:
    runner = FakeRunner()
    images.ensure_base(FakeEngine(images.BASE), runner, lambda line: None)
    assert runner.commands == []


def test_a_base_that_can_be_pulled_is_pulled() -> None:
    runner, engine = FakeRunner(), FakeEngine(registry=(images.BASE,))
    images.ensure_base(engine, runner, lambda line: None)
    assert engine.held == {images.BASE}
    assert runner.commands == []


def test_a_base_that_cannot_be_pulled_is_made_from_packages(host: Path) -> None:
    engine, said = FakeEngine(), list[str]()
    images.ensure_base(engine, FakeRunner(bootstraps), said.append)
    assert "./etc/apt/apt.conf.d/docker-clean" in engine.imported[images.BASE]
    assert "no registry answers" in said[1]
    assert "done" in said


def test_the_temporary_directory_is_removed_also_after_a_failure(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (host / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(host / "tmp"))
    with pytest.raises(HostError):
        images.ensure_base(FakeEngine(), FakeRunner(lambda command: Result(1, "", "E: no space")), lambda line: None)
    assert list((host / "tmp").iterdir()) == []


def test_when_nothing_works_the_error_says_what_was_tried_and_what_to_do(host: Path) -> None:
    with pytest.raises(HostError) as caught:
        images.ensure_base(FakeEngine(), FakeRunner(lambda command: Result(1, "", "E: no space")), lambda line: None)
    assert images.BASE in caught.value.message
    assert "E: no space" in caught.value.details
    assert "docker load" in caught.value.remedy


def test_root_runs_mmdebstrap_itself_and_others_in_a_namespace_or_through_sudo() -> None:
    tools, tarball = images.Tools("/t/mmdebstrap", "/t/key.gpg", "/t:/bin", "/t/perl"), Path("/t/base.tar")
    (own,) = images.bootstrap_commands(tools, tarball, root=True)
    assert own.argv[0] == "/t/mmdebstrap"
    assert own.argv[-2:] == ("trixie", "/t/base.tar")
    assert own.environment["PERL5LIB"] == "/t/perl"
    unshared, sudo = images.bootstrap_commands(tools, tarball, root=False)
    assert "--mode=unshare" in unshared.argv
    assert sudo.argv[:3] == ("sudo", "-n", "env")
    assert "PERL5LIB=/t/perl" in sudo.argv


def test_the_second_way_is_tried_when_the_first_fails(tmp_path: Path) -> None:
    tools = images.Tools("/t/mmdebstrap", "/t/key.gpg", "/bin")
    runner = FakeRunner(lambda command: OK if command.argv[0] == "sudo" else Result(1, "", "E: no namespace"))
    images.bootstrap(runner, tools, tmp_path / "base.tar", lambda line: None, root=False)
    assert len(runner.commands) == 2


def test_mmdebstraps_apt_is_given_no_clean_up_which_it_would_run_on_the_host() -> None:
    tools = images.Tools("mmdebstrap", "key.gpg", "/bin")
    (command,) = images.bootstrap_commands(tools, Path("base.tar"), root=True)
    assert "Post-Invoke" not in " ".join(command.argv)


def test_a_missing_mmdebstrap_is_fetched_and_never_installed(host: Path) -> None:
    (host / "mmdebstrap").unlink()

    def answer(command: Command) -> Result:
        if command.argv[0] == "apt-get":
            (host / "work" / "archives" / "mmdebstrap.deb").touch()
        elif command.argv[0] == "dpkg-deb":
            (Path(command.argv[-1]) / "usr" / "bin").mkdir(parents=True)
            (Path(command.argv[-1]) / "usr" / "bin" / "mmdebstrap").touch(mode=0o755)
        return OK

    runner = FakeRunner(answer)
    tools = images._tools(runner, host / "work", lambda line: None)
    assert tools.mmdebstrap == str(host / "work" / "tree" / "usr" / "bin" / "mmdebstrap")
    assert all("--download-only" in line for line in runner.lines if "install" in line)


def test_package_lists_that_know_nothing_are_fetched_beside_the_hosts_own(tmp_path: Path) -> None:
    def answer(command: Command) -> Result:
        return OK if any("State::lists" in part for part in command.argv) else Result(100, "", "E: unable to locate")

    runner = FakeRunner(answer)
    images.fetch_packages(runner, ["mmdebstrap"], tmp_path / "work")
    assert [("update" in command.argv) for command in runner.commands] == [False, True, False]
    assert f"-oDir::State::lists={tmp_path / 'work' / 'lists'}" in runner.commands[1].argv


def test_packages_that_cannot_be_fetched_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    def answer(command: Command) -> Result:
        raise HostError("apt-get: cannot be run: No such file or directory")

    with pytest.raises(HostError, match="cannot be fetched") as caught:
        images.fetch_packages(FakeRunner(answer), ["mmdebstrap"], tmp_path / "work")
    assert "No such file" in caught.value.details
    assert caught.value.remedy


# ── the build ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_images_that_are_there_are_not_built() -> None:
    runner = FakeRunner()
    assert images.ensure_images(FakeEngine("a:1", "b:1"), runner, BUILD, ["a:1", "b:1"], print) is False
    assert runner.commands == []


def test_one_missing_image_builds_them_and_the_steps_of_the_build_are_told() -> None:
    engine, said = FakeEngine(images.BASE, "a:1"), list[str]()

    def answer(command: Command) -> Result:
        engine.held.add("b:1")
        return Result(0, "", "Step 1/2 : FROM x\n\n\x1b[91mwarning\x1b[0m\n")

    runner = FakeRunner(answer)
    assert images.ensure_images(engine, runner, BUILD, ["a:1", "b:1"], said.append) is True
    assert runner.commands[0].argv[-2:] == BUILD.argv
    assert runner.commands[0].environment == BUILD.environment
    assert said == ["Step 1/2 : FROM x"]


def test_a_build_that_fails_shows_its_last_lines() -> None:
    runner = FakeRunner(lambda command: Result(17, "", "Step 1\nE: Unable to locate package postfix"))
    with pytest.raises(CommandFailed, match=r"docker-compose build.*code 17") as caught:
        images.ensure_images(FakeEngine(images.BASE), runner, BUILD, ["a:1"], lambda line: None)
    assert "Unable to locate" in caught.value.details


def test_a_build_that_makes_something_else_is_an_error() -> None:
    with pytest.raises(HostError, match="did not make a:1"):
        images.ensure_images(FakeEngine(images.BASE), FakeRunner(), BUILD, ["a:1"], lambda line: None)


# ── on another host ────────────────────────────────────────────────────────────────────────────────────────────────


def built(engine: FakeEngine) -> FakeRunner:
    """A runner that builds `a:1` on an engine."""

    def answer(command: Command) -> Result:
        engine.held.add("a:1")
        return OK

    return FakeRunner(answer)


def test_a_host_that_can_pull_the_base_builds_though_the_images_are_here() -> None:
    engine, here = FakeEngine(registry=(images.BASE,)), FakeEngine("a:1")
    assert images.ensure_images(engine, built(engine), BUILD, ["a:1"], lambda line: None, here=here)
    assert engine.held == {images.BASE, "a:1"}


def test_a_host_without_a_way_to_the_base_is_sent_the_images_that_it_lacks() -> None:
    engine, here, runner, said = FakeEngine("b:1"), FakeEngine("a:1", "b:1"), FakeRunner(), list[str]()
    assert images.ensure_images(engine, runner, BUILD, ["a:1", "b:1"], said.append, here=here)
    assert engine.held == {"a:1", "b:1"} and runner.commands == []
    assert "sending the images to the other engine: about 1 MiB" in said


def test_a_host_that_cannot_build_is_sent_the_images() -> None:
    engine, here = FakeEngine(images.BASE), FakeEngine("a:1")
    runner = FakeRunner(lambda command: Result(100, "", "E: Unable to fetch some archives"))
    assert images.ensure_images(engine, runner, BUILD, ["a:1"], lambda line: None, here=here)
    assert "a:1" in engine.held


def test_a_build_that_fails_on_a_host_to_which_nothing_can_be_sent_says_how_it_could() -> None:
    runner = FakeRunner(lambda command: Result(100, "", "E: Unable to fetch some archives"))
    with pytest.raises(CommandFailed, match="could not be built") as caught:
        images.ensure_images(FakeEngine(images.BASE), runner, BUILD, ["a:1"], lambda line: None, here=FakeEngine())
    assert "without --host" in caught.value.remedy


def test_a_host_without_a_way_to_the_base_is_sent_that_where_the_images_are_not_here() -> None:
    engine, here = FakeEngine(), FakeEngine(images.BASE)
    assert images.ensure_images(engine, built(engine), BUILD, ["a:1"], lambda line: None, here=here)
    assert engine.held == {images.BASE, "a:1"} and not engine.imported


@pytest.mark.sockets
def test_the_base_is_made_from_packages_where_this_machine_has_no_engine(host: Path) -> None:
    engine = FakeEngine()

    def answer(command: Command) -> Result:
        if command.argv[-2:] == BUILD.argv:
            engine.held.add("a:1")
            return OK
        return bootstraps(command)

    runner = FakeRunner(answer)
    here = Engine(LocalTarget("unix:///nowhere/docker.sock"))
    assert images.ensure_images(engine, runner, BUILD, ["a:1"], lambda line: None, here=here)
    assert images.BASE in engine.imported


def test_images_for_another_processor_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, here = FakeEngine(), FakeEngine("a:1", images.BASE)
    engine.processor = "riscv64"
    monkeypatch.setattr(here, "image_platform", lambda reference: "amd64")
    monkeypatch.setattr(engine, "info", lambda: {"Architecture": "riscv64"})
    with pytest.raises(HostError, match="its processor is riscv64") as caught:
        images.ensure_images(engine, FakeRunner(), BUILD, ["a:1"], lambda line: None, here=here)
    assert platform.machine() in caught.value.message and "docker load" in caught.value.remedy
    assert engine.held == set()


def test_how_much_has_gone_is_told_twice_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said, pieces = iter(range(1000)), list[str](), [bytes(1 << 20)] * 100
    monkeypatch.setattr("time.monotonic", lambda: next(clock) / 10)
    assert list(transfer.counted(pieces, 100 << 20, said.append, "far")) == pieces
    assert len(said) == 2 + 100 // 5
    assert said[1] == "sending the images to far: 5 of about 100 MiB"
    assert said[-1] == "far unpacks the images"


# ── the size ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_layer_that_images_share_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"a": [("base", 80), ("base/a", 6)], "b": [("base", 80), ("base/b", 19)]}
    engine = FakeEngine()
    monkeypatch.setattr(engine, "image_layers", layers.__getitem__)
    assert images.unique_bytes(engine, ["a", "b"]) == 105


CLASSIC = (("", 80), ("/bin/sh -c apt-get update", 40), ("/bin/sh -c #(nop) COPY file:1 in /x ", 2))
BUILDKIT = (("", 80), ("RUN /bin/sh -c apt-get update # buildkit", 40), ("COPY a /x # buildkit", 2))


def history(*entries: tuple[str, int]) -> list[dict[str, Any]]:
    """A history, lowest first, from (instruction, bytes)."""
    return [{"CreatedBy": text, "Size": size} for text, size in entries]


@pytest.mark.parametrize(
    ("entries", "sizes"),
    [
        pytest.param(CLASSIC, [80, 40, 2], id="every entry has a layer"),
        pytest.param((*CLASSIC, ('/bin/sh -c #(nop)  CMD ["x"]', 0)), [80, 40, 2], id="classic: a CMD has none"),
        pytest.param((*BUILDKIT, ('CMD ["x"]', 0)), [80, 40, 2], id="BuildKit: a CMD has none"),
        pytest.param((("", 80), ("WORKDIR /w", 0), ("ENV a=b", 0), *BUILDKIT[1:]), [80, 0, 40, 2], id="WORKDIR has"),
        pytest.param(
            (("", 80), ("/bin/sh -c true", 0), ("/bin/sh -c #(nop) WORKDIR /w", 0), ("/bin/sh -c #(nop)  ENV a=b", 0)),
            [80, 0],
            id="classic: a RUN that changes nothing has none",
        ),
    ],
)
def test_each_size_of_the_history_finds_its_layer(entries: tuple[tuple[str, int], ...], sizes: list[int]) -> None:
    assert layers.sizes(history(*entries), len(sizes)) == sizes
