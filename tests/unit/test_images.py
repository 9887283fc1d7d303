"""Tag, build and size of the images, without an engine."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from mailstack.engine import layers
from mailstack.engine.engine import Engine
from mailstack.errors import CommandFailed, HostError
from mailstack.images import build, transfer
from mailstack.images.base import BASE
from mailstack.model import Command, Result
from mailstack.target.target import LocalTarget
from tests.unit.fake_images import FakeEngine, bootstraps, debian_host
from tests.unit.fakes import OK, FakeRunner

__all__ = ["debian_host"]

BUILD = Command(("docker-compose", "build"), {"MAILSTACK_TAG": "abc"})


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Return a folder with one build context."""
    (tmp_path / "stack" / "postfix").mkdir(parents=True)
    (tmp_path / "stack" / "postfix" / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "stack" / "postfix" / "entrypoint").write_text("#!/bin/sh\n")
    return tmp_path / "stack"


# ── the tag ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tag_stays_when_nothing_changes_but_times(stack: Path) -> None:
    before = build.content_tag(stack)
    (stack / "postfix" / "Dockerfile").touch()
    assert build.content_tag(stack) == before
    assert len(before) == 12


def test_the_tag_changes_with_a_files_bytes(stack: Path) -> None:
    before = build.content_tag(stack)
    (stack / "postfix" / "Dockerfile").write_text("FROM debian\n")
    assert build.content_tag(stack) != before


def test_the_tag_changes_with_a_files_name(stack: Path) -> None:
    before = build.content_tag(stack)
    (stack / "postfix" / "entrypoint").rename(stack / "postfix" / "start")
    assert build.content_tag(stack) != before


def test_the_tag_changes_when_a_file_becomes_executable(stack: Path) -> None:
    before = build.content_tag(stack)
    (stack / "postfix" / "entrypoint").chmod(0o755)
    assert build.content_tag(stack) != before


def test_the_tag_is_the_same_for_any_owner_and_umask(stack: Path) -> None:
    before = build.content_tag(stack)
    (stack / "postfix" / "Dockerfile").chmod(0o600)
    assert build.content_tag(stack) == before


# ── the build ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_images_that_are_there_are_not_built() -> None:
    runner = FakeRunner()
    assert build.ensure_images(FakeEngine("a:1", "b:1"), runner, BUILD, ["a:1", "b:1"], print) is False
    assert runner.commands == []


def test_one_missing_image_builds_them_and_the_steps_of_the_build_are_told() -> None:
    engine, said = FakeEngine(BASE, "a:1"), list[str]()

    def answer(command: Command) -> Result:
        engine.held.add("b:1")
        return Result(0, "", "Step 1/2 : FROM x\n\n\x1b[91mwarning\x1b[0m\n")

    runner = FakeRunner(answer)
    assert build.ensure_images(engine, runner, BUILD, ["a:1", "b:1"], said.append) is True
    assert runner.commands[0].argv[-2:] == BUILD.argv
    assert runner.commands[0].environment == BUILD.environment
    assert said == ["Step 1/2 : FROM x"]


def test_a_build_that_fails_shows_its_last_lines() -> None:
    runner = FakeRunner(lambda command: Result(17, "", "Step 1\nE: Unable to locate package postfix"))
    with pytest.raises(CommandFailed, match=r"docker-compose build.*code 17") as caught:
        build.ensure_images(FakeEngine(BASE), runner, BUILD, ["a:1"], lambda line: None)
    assert "Unable to locate" in caught.value.details


def test_a_build_that_makes_something_else_is_an_error() -> None:
    with pytest.raises(HostError, match="did not make a:1"):
        build.ensure_images(FakeEngine(BASE), FakeRunner(), BUILD, ["a:1"], lambda line: None)


# ── on another host ────────────────────────────────────────────────────────────────────────────────────────────────


def built(engine: FakeEngine) -> FakeRunner:
    """Return a runner that builds `a:1` on an engine."""

    def answer(command: Command) -> Result:
        engine.held.add("a:1")
        return OK

    return FakeRunner(answer)


def test_a_host_that_can_pull_the_base_builds_though_the_images_are_here() -> None:
    engine, here = FakeEngine(registry=(BASE,)), FakeEngine("a:1")
    assert build.ensure_images(engine, built(engine), BUILD, ["a:1"], lambda line: None, own_engine=here)
    assert engine.held == {BASE, "a:1"}


def test_a_host_without_a_way_to_the_base_is_sent_the_images_that_it_lacks() -> None:
    engine, here, runner, said = FakeEngine("b:1"), FakeEngine("a:1", "b:1"), FakeRunner(), list[str]()
    assert build.ensure_images(engine, runner, BUILD, ["a:1", "b:1"], said.append, own_engine=here)
    assert engine.held == {"a:1", "b:1"} and runner.commands == []
    assert "sending the images to the other engine: about 1 MiB" in said


def test_a_host_that_cannot_build_is_sent_the_images() -> None:
    engine, here = FakeEngine(BASE), FakeEngine("a:1")
    runner = FakeRunner(lambda command: Result(100, "", "E: Unable to fetch some archives"))
    assert build.ensure_images(engine, runner, BUILD, ["a:1"], lambda line: None, own_engine=here)
    assert "a:1" in engine.held


def test_a_build_that_fails_on_a_host_to_which_nothing_can_be_sent_says_how_it_could() -> None:
    runner = FakeRunner(lambda command: Result(100, "", "E: Unable to fetch some archives"))
    with pytest.raises(CommandFailed, match="could not be built") as caught:
        build.ensure_images(FakeEngine(BASE), runner, BUILD, ["a:1"], lambda line: None, own_engine=FakeEngine())
    assert "without --host" in caught.value.remedy


def test_a_host_without_a_way_to_the_base_is_sent_that_where_the_images_are_not_here() -> None:
    engine, here = FakeEngine(), FakeEngine(BASE)
    assert build.ensure_images(engine, built(engine), BUILD, ["a:1"], lambda line: None, own_engine=here)
    assert engine.held == {BASE, "a:1"} and not engine.imported


@pytest.mark.sockets
def test_the_base_is_made_from_packages_where_this_machine_has_no_engine(debian_host: Path) -> None:
    engine = FakeEngine()

    def answer(command: Command) -> Result:
        if command.argv[-2:] == BUILD.argv:
            engine.held.add("a:1")
            return OK
        return bootstraps(command)

    runner = FakeRunner(answer)
    here = Engine(LocalTarget("unix:///nowhere/docker.sock"))
    assert build.ensure_images(engine, runner, BUILD, ["a:1"], lambda line: None, own_engine=here)
    assert BASE in engine.imported


def test_images_for_another_processor_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, here = FakeEngine(), FakeEngine("a:1", BASE)
    engine.processor = "riscv64"
    monkeypatch.setattr(here, "image_platform", lambda reference: "amd64")
    monkeypatch.setattr(engine, "info", lambda: {"Architecture": "riscv64"})
    with pytest.raises(HostError, match="its processor is riscv64") as caught:
        build.ensure_images(engine, FakeRunner(), BUILD, ["a:1"], lambda line: None, own_engine=here)
    assert platform.machine() in caught.value.message and "docker load" in caught.value.remedy
    assert engine.held == set()


def test_how_much_has_gone_is_told_twice_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said, pieces = iter(range(1000)), list[str](), [bytes(1 << 20)] * 100
    monkeypatch.setattr("time.monotonic", lambda: next(clock) / 10)
    assert list(transfer.with_progress(pieces, 100 << 20, said.append, "far")) == pieces
    assert len(said) == 2 + 100 // 5
    assert said[1] == "sending the images to far: 5 of about 100 MiB"
    assert said[-1] == "far unpacks the images"


# ── the size ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_layer_that_images_share_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"a": [("base", 80), ("base/a", 6)], "b": [("base", 80), ("base/b", 19)]}
    engine = FakeEngine()
    monkeypatch.setattr(engine, "image_layers", layers.__getitem__)
    assert build.unique_bytes(engine, ["a", "b"]) == 105


CLASSIC = (("", 80), ("/bin/sh -c apt-get update", 40), ("/bin/sh -c #(nop) COPY file:1 in /x ", 2))
BUILDKIT = (("", 80), ("RUN /bin/sh -c apt-get update # buildkit", 40), ("COPY a /x # buildkit", 2))


def history(*entries: tuple[str, int]) -> list[dict[str, Any]]:
    """Return a history, lowest layer first, from (instruction, bytes)."""
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
