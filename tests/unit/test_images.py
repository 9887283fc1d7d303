"""Base, tag, build and size of the images, without an engine."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from mailstack import images, layers
from mailstack.engine import Engine
from mailstack.errors import CommandFailed, EngineError, HostError
from mailstack.model import Command, Result
from tests.unit.fakes import OK, FakeRunner

BUILD = Command(("docker-compose", "build"), {"MAILSTACK_TAG": "abc"})


class FakeEngine(Engine):
    """An engine that holds the images it was given, and can pull those of its registry."""

    def __init__(self, *held: str, registry: tuple[str, ...] = ()) -> None:
        super().__init__("unix:///nowhere")
        self.held = set(held)
        self.registry = registry
        self.imported: dict[str, list[str]] = {}

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
