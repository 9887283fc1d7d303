"""The base image, without an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.errors import HostError
from mailstack.images import base
from mailstack.images.base import BASE
from mailstack.model import Command, Result
from mailstack.runner.local import Local
from tests.unit.fake_images import FakeEngine, bootstraps, debian_host
from tests.unit.fakes import OK, FakeRunner

__all__ = ["debian_host"]


def test_a_base_that_is_there_is_taken_as_it_is() -> None:
    runner = FakeRunner()
    base.ensure_base(FakeEngine(BASE), runner, lambda line: None)
    assert runner.commands == []


def test_a_base_that_can_be_pulled_is_pulled() -> None:
    runner, engine = FakeRunner(), FakeEngine(registry=(BASE,))
    base.ensure_base(engine, runner, lambda line: None)
    assert engine.held == {BASE}
    assert runner.commands == []


def test_a_base_that_cannot_be_pulled_is_made_from_packages(debian_host: Path) -> None:
    engine, said = FakeEngine(), list[str]()
    base.ensure_base(engine, FakeRunner(bootstraps), said.append)
    assert "./etc/apt/apt.conf.d/docker-clean" in engine.imported[BASE]
    assert "no registry answers" in said[1]
    assert "done" in said


def test_the_temporary_directory_is_removed_also_after_a_failure(
    debian_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (debian_host / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(debian_host / "tmp"))
    with pytest.raises(HostError):
        base.ensure_base(FakeEngine(), FakeRunner(lambda command: Result(1, "", "E: no space")), lambda line: None)
    assert list((debian_host / "tmp").iterdir()) == []


def test_when_nothing_works_the_error_says_what_was_tried_and_what_to_do(debian_host: Path) -> None:
    with pytest.raises(HostError) as caught:
        base.ensure_base(FakeEngine(), FakeRunner(lambda command: Result(1, "", "E: no space")), lambda line: None)
    assert BASE in caught.value.message
    assert "E: no space" in caught.value.details
    assert "docker load" in caught.value.remedy


def test_root_runs_mmdebstrap_itself_and_others_in_a_namespace_or_through_sudo() -> None:
    tools, tarball = base.Tools("/t/mmdebstrap", "/t/key.gpg", "/t:/bin", "/t/perl"), Path("/t/base.tar")
    (own,) = base.bootstrap_commands(tools, tarball, root=True)
    assert own.argv[0] == "/t/mmdebstrap"
    assert own.argv[-2:] == ("trixie", "/t/base.tar")
    assert own.environment["PERL5LIB"] == "/t/perl"
    unshared, sudo = base.bootstrap_commands(tools, tarball, root=False)
    assert "--mode=unshare" in unshared.argv
    assert sudo.argv[:3] == ("sudo", "-n", "env")
    assert "PERL5LIB=/t/perl" in sudo.argv


def test_the_second_way_is_tried_when_the_first_fails(tmp_path: Path) -> None:
    tools = base.Tools("/t/mmdebstrap", "/t/key.gpg", "/bin")
    runner = FakeRunner(lambda command: OK if command.argv[0] == "sudo" else Result(1, "", "E: no namespace"))
    base.bootstrap(runner, tools, tmp_path / "base.tar", lambda line: None, root=False)
    assert len(runner.commands) == 2


def test_mmdebstraps_apt_is_given_no_clean_up_which_it_would_run_on_the_host() -> None:
    tools = base.Tools("mmdebstrap", "key.gpg", "/bin")
    (command,) = base.bootstrap_commands(tools, Path("base.tar"), root=True)
    assert "Post-Invoke" not in " ".join(command.argv)


def test_a_missing_mmdebstrap_is_fetched_and_never_installed(debian_host: Path) -> None:
    (debian_host / "mmdebstrap").unlink()

    def answer(command: Command) -> Result:
        if command.argv[0] == "apt-get":
            (debian_host / "work" / "archives" / "mmdebstrap.deb").touch()
        elif command.argv[0] == "dpkg-deb":
            (Path(command.argv[-1]) / "usr" / "bin").mkdir(parents=True)
            (Path(command.argv[-1]) / "usr" / "bin" / "mmdebstrap").touch(mode=0o755)
        return OK

    runner = FakeRunner(answer)
    tools = base._tools(runner, debian_host / "work", lambda line: None)
    assert tools.mmdebstrap == str(debian_host / "work" / "tree" / "usr" / "bin" / "mmdebstrap")
    assert all("--download-only" in line for line in runner.lines if "install" in line)


def test_package_lists_that_know_nothing_are_fetched_beside_the_hosts_own(tmp_path: Path) -> None:
    def answer(command: Command) -> Result:
        return OK if any("State::lists" in part for part in command.argv) else Result(100, "", "E: unable to locate")

    runner = FakeRunner(answer)
    base.fetch_packages(runner, ["mmdebstrap"], tmp_path / "work")
    assert [("update" in command.argv) for command in runner.commands] == [False, True, False]
    assert f"-oDir::State::lists={tmp_path / 'work' / 'lists'}" in runner.commands[1].argv


def test_packages_that_cannot_be_fetched_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    def answer(command: Command) -> Result:
        raise HostError("apt-get: cannot be run: No such file or directory")

    with pytest.raises(HostError, match="cannot be fetched") as caught:
        base.fetch_packages(FakeRunner(answer), ["mmdebstrap"], tmp_path / "work")
    assert "No such file" in caught.value.details
    assert caught.value.remedy


def test_documentation_is_left_out_by_dpkg_s_settings_which_mmdebstrap_would_apply_slowly() -> None:
    tools = base.Tools("mmdebstrap", "key.gpg", "/bin")
    (command,) = base.bootstrap_commands(tools, Path("base.tar"), root=True)
    (hook,) = [word for word in command.argv if word.startswith("--extract-hook=")]
    assert "path-exclude=/usr/share/man/*" in hook
    assert not [word for word in command.argv if word.startswith("--dpkgopt=path")]


def test_the_hook_leaves_licences_and_nothing_else_of_the_documentation(tmp_path: Path) -> None:
    for name in (
        "etc/dpkg/dpkg.cfg.d/x",
        "usr/share/doc/a/copyright",
        "usr/share/doc/a/README",
        "usr/share/man/man1/a.1",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "usr/share/doc/b").symlink_to("a")
    Local().run(Command(("sh", "-c", base._SLIM, "sh", str(tmp_path))))
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert left == {"etc/dpkg/dpkg.cfg.d/docker", "etc/dpkg/dpkg.cfg.d/x", "usr/share/doc/a/copyright"}
    settings = (tmp_path / "etc/dpkg/dpkg.cfg.d/docker").read_text().splitlines()
    assert settings == list(base._DPKG)


def test_the_tree_is_made_in_memory_where_it_fits_and_its_programs_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = base.Tools("mmdebstrap", "key.gpg", "/bin")
    (command,) = base.bootstrap_commands(tools, Path("base.tar"), root=True, room=Path("/dev/shm"))
    assert command.environment["TMPDIR"] == "/dev/shm"
    monkeypatch.setattr(base, "_free_memory", lambda: 0)
    assert base._memory() is None
