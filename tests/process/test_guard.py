"""The guard of the tests: a test that accesses the outside without the marker fails; with the marker it passes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SUITE = """
import os, socket, subprocess, sys
import pytest

def listener():
    return socket.create_server(("127.0.0.1", 0))

@pytest.fixture
def child():
    return subprocess.run(["true"]).returncode

def test_red_a_process(): subprocess.run(["true"])
def test_red_a_process_whose_refusal_is_caught():
    try: subprocess.run(["true"])
    except Exception: pass
def test_red_a_spawned_process(): os.posix_spawn("/bin/true", ["true"], {})
def test_red_a_fork(): os.fork() or os._exit(0)
def test_red_a_shell(): os.system("true")
def test_red_a_fixture(child): pass
def test_red_a_socket(): listener()
def test_red_the_network(): socket.create_connection(("192.0.2.1", 25), timeout=0.01)
def test_red_a_name(): socket.getaddrinfo("www.example.com", 25)
@pytest.mark.sockets
def test_red_the_network_all_the_same(): socket.create_connection(("198.51.100.1", 25), timeout=0.01)
@pytest.mark.docker
def test_red_the_internet(): socket.create_connection(("1.1.1.1", 25), timeout=0.01)
@pytest.mark.sockets
def test_red_the_engine():
    with socket.socket(socket.AF_UNIX) as engine: engine.connect("/var/run/docker.sock")
@pytest.mark.process
def test_red_docker(): subprocess.run(["docker", "version"])
@pytest.mark.process
def test_red_the_engine_asked_by_a_process():
    code = "import os, socket; socket.socket(socket.AF_UNIX).connect(os.environ['DOCKER_HOST'].removeprefix('unix://'))"
    subprocess.run([sys.executable, "-c", code], check=True)

def test_green_nothing(): pass
@pytest.mark.process
def test_green_a_process(child): os.fork() or os._exit(0); os.wait()
@pytest.mark.sockets
def test_green_a_socket():
    with listener() as server: socket.create_connection(server.getsockname()).close()
@pytest.mark.docker
def test_green_docker(child): listener().close()
"""


def run(directory: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a suite with this project's configuration."""
    (directory / "test_suite.py").write_text(source)
    (directory / "conftest.py").write_text("from tests.conftest import *\n")
    command = [sys.executable, "-m", "pytest", "-rA", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return subprocess.run(
        [*command, "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(directory), *options, str(directory)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.process
def test_what_a_test_has_no_marker_for_fails_it(tmp_path: Path) -> None:
    shown = run(tmp_path, SUITE).stdout
    ended = {words[1].partition("::")[2]: words[0] for line in shown.splitlines() if (words := line.split(" ", 2))[1:]}
    names = [line.split("(")[0].removeprefix("def ") for line in SUITE.splitlines() if line.startswith("def test_")]
    assert len(names) == 18
    for name in names:
        assert ended[name] in (("FAILED", "ERROR") if "red" in name else ("PASSED",)), shown


@pytest.mark.process
@pytest.mark.parametrize(("skipped", "code"), [("True", 1), ("False", 0)])
def test_a_suite_that_has_skipped_every_test_on_docker_fails_where_an_engine_is_required(
    tmp_path: Path, skipped: str, code: int
) -> None:
    source = f"""
import pytest
def test_it(): pass
@pytest.mark.docker
@pytest.mark.skipif({skipped}, reason="there is no engine")
def test_on_docker(): pass
"""
    done = run(tmp_path, source, "--require-engine")
    assert done.returncode == code, done.stdout
    assert ("none of the 1 tests on Docker was run" in done.stdout) == (code == 1)


@pytest.mark.process
def test_fixtures_of_the_session_end_in_the_environment_they_began_in(tmp_path: Path) -> None:
    source = """
import os
import pytest

@pytest.fixture(scope="session")
def of_the_session():
    before = os.environ.get("DOCKER_HOST")
    yield
    assert os.environ.get("DOCKER_HOST") == before

@pytest.mark.docker
def test_on_docker(of_the_session): pass
def test_that_has_an_engine_of_its_own(monkeypatch): monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
"""
    done = run(tmp_path, source)
    assert done.returncode == 0, done.stdout
