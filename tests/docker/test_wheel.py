"""The wheel contains all that a lab needs: installed into an empty environment, it works in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.definition import bundled
from mailstack.images import build
from tests.docker.conftest import Labs

pytestmark = [pytest.mark.docker, pytest.mark.wheel]

PROJECT = Path(__file__).parents[2]
CONSTRAINTS = PROJECT / "requirements-dev.txt"

SUITE = """
def test_hello(mailbox, smtp_settings):
    with smtp_settings.connect() as session:
        session.sendmail("shop@example.com", [mailbox.address], b"Subject: hello\\n\\nhello\\n")
    assert mailbox.wait_for_message(subject="hello").text.strip() == "hello"
"""


def run(*words: str | Path, cwd: Path, environment: dict[str, str] | None = None, code: int = 0) -> str:
    """Run a command that must end with `code`; return its standard output."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    directory = tmp_path_factory.mktemp("dist")
    words = ("--no-deps", "--no-build-isolation", "--wheel-dir", directory, PROJECT)
    run(sys.executable, "-m", "pip", "--quiet", "wheel", *words, cwd=directory)
    (built,) = directory.glob("mailstack-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the commands of an environment with the wheel, Compose and pytest, and nothing of the
    checkout. The checkout's pip fills it: a second one is not what is tested.
    """
    directory = tmp_path_factory.mktemp("installed")
    venv.create(directory, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--python", directory / "bin" / "python")
    words = ("--quiet", "--no-input", "--disable-pip-version-check", "--constraint", CONSTRAINTS)
    run(*pip, "install", *words, f"mailstack[compose] @ {wheel.as_uri()}", "pytest", cwd=directory)
    return directory / "bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder to work in."""
    made = tmp_path / "empty"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def environment(installed: Path, labs: Labs) -> Iterator[dict[str, str]]:
    """Return variables without this test's own Python, and with the environment's commands first."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    yield {**kept, "PATH": f"{installed}:{os.defpath}:/usr/sbin:/sbin"}


def test_the_wheel_has_every_file_of_the_definitions_and_the_images_executable_as_they_are(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {
            entry.filename.removeprefix("mailstack/_data/"): bool(entry.external_attr >> 16 & 0o111)
            for entry in archive.infolist()
            if entry.filename.startswith("mailstack/_data/")
        }
    checkout = {
        str(path.relative_to(PROJECT)): bool(path.stat().st_mode & 0o111)
        for part in ("compose", "stack")
        for path in (PROJECT / part).rglob("*")
        if path.is_file()
    }
    assert inside == checkout


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    package = {str(path.relative_to(PROJECT)) for path in (PROJECT / "mailstack").rglob("*") if path.is_file()}
    assert {name for name in package if not name.endswith(".pyc")} <= inside


def test_the_wheel_says_that_its_types_are_to_be_used(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "mailstack/py.typed" in archive.namelist()  # PEP 561


def test_the_fixtures_are_there_for_a_suite_that_does_nothing_but_use_them(
    installed: Path, environment: dict[str, str], folder: Path
) -> None:
    (folder / "test_hello.py").write_text(SUITE)
    shown = run(installed / "pytest", "-v", cwd=folder, environment=environment)
    assert "1 passed" in shown and "plugins: mailstack-" in shown
    place = run(installed / "python", "-c", "import mailstack; print(mailstack.__file__)", cwd=folder).strip()
    assert Path(place).is_relative_to(installed.parent)


def test_the_report_s_page_is_made_from_what_the_wheel_brings(
    installed: Path, environment: dict[str, str], folder: Path
) -> None:
    document = PROJECT / "tests" / "data" / "experiment.json"
    script = f"import json; from mailstack.report import page; print(page.render(json.load(open({str(document)!r}))))"
    made = run(installed / "python", "-c", script, cwd=folder, environment=environment)
    assert made.startswith("<!DOCTYPE html>") and f"All {json.loads(document.read_text())['passed']} rows" in made


def test_a_lab_comes_up_is_checked_and_goes_from_an_empty_folder_with_the_checkouts_images(
    installed: Path, environment: dict[str, str], folder: Path, labs: Labs
) -> None:
    name = labs.new_name("wheel")
    command = installed / "mailstack"
    modules = "from mailstack.definition import bundled; from mailstack.images import build"
    script = f"{modules}; print(build.content_tag(bundled.stack()), bundled.stack())"
    tag, place = run(installed / "python", "-c", script, cwd=folder, environment=environment).split()
    assert not place.startswith(str(PROJECT))
    # The same content is the same image: nothing is built again for who installs the wheel.
    assert tag == build.content_tag(bundled.stack())
    up = json.loads(run(command, "up", "-n", name, "--json", cwd=folder, environment=environment))
    assert up["verified"]["milliseconds"] > 0
    status = json.loads(run(command, "status", "-n", name, "--json", cwd=folder, environment=environment))
    assert {service["image"] for service in status["services"]} == {
        f"mailstack/{service}:{tag}" for service in ("postfix", "dovecot", "sender")
    }
    checked = json.loads(
        run(command, "check", "-n", name, "auth", "tls", "delivery", "--json", cwd=folder, environment=environment)
    )
    assert {check["verdict"] for check in checked["checks"]} == {"pass"}
    assert json.loads(run(command, "down", "-n", name, "--json", cwd=folder, environment=environment)) == {
        "removed": [name]
    }
    assert list(folder.iterdir()) == []
