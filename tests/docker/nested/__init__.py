"""A machine with an engine of its own, in a container: another version than the host's, and nothing left of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, Deadline
from mailstack.secret import write_private

HERE = Path(__file__).parent
PROJECT = HERE.parents[2]
IMAGE = "mailstack/nested:tests"
REMOTE = "mailstack/remote:tests"  # a bare machine with SSH
BARE = "mailstack/bare:tests"  # one that has no engine either
# Of it: in the group `docker`, where there is one; may use the engine by sudo alone; may not.
USERS = ("tester", "sudoer", "stranger", "root")
PYTHON = "3.13"  # Debian trixie's
START_SECONDS = 60.0

# What an engine needs in a container of a host that lacks CAP_SYS_RESOURCE, so that `privileged` cannot be had.
PRIVILEGES: dict[str, Any] = {
    "cap_add": ["ALL"],
    "cap_drop": ["SYS_RESOURCE"],
    "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
    "cgroupns": "host",
}


@dataclass(frozen=True)
class Machine:
    """A nested machine that runs."""

    container: Any  # of the host's engine
    engine: Any  # its own, a docker.DockerClient; None where there is none
    socket: str
    home: Path | None = None  # of somebody here who may log in to it: with ~/.ssh

    def run(self, *words: str, code: int | None = 0) -> str:
        """A command on the machine: its standard output; it must end with `code`, if that is said."""
        result = self.container.exec_run(
            list(words), environment={"DOCKER_HOST": f"unix://{self.socket}"}, demux=True, workdir="/root"
        )
        output, errors = (stream.decode() if stream else "" for stream in result.output)
        assert code in (None, result.exit_code), (
            f"{words} ended with {result.exit_code}: {errors[-3000:]} {output[-1000:]}"
        )
        return output

    def json(self, *words: str) -> Any:
        """`mailstack WORDS --json` on the machine."""
        return json.loads(self.run("/opt/mailstack/bin/mailstack", *words, "--json"))

    def load(self, references: Iterable[str]) -> None:
        """Images of the host's engine, for the machine's own: each layer goes over once."""
        api = docker.from_env().api
        with api.get(
            f"{api.base_url}/v{api.api_version}/images/get", params={"names": list(references)}, stream=True
        ) as saved:
            saved.raise_for_status()
            # Which gives its news while it goes on: it is done when there are no more.
            told = list(self.engine.api.load_image(saved.iter_content(1 << 20)))
        assert told and not any("error" in each for each in told), told[-3:]


def build(tag: str = IMAGE) -> None:
    """A machine's image; what has not changed is in the engine's cache."""
    context = {name: (HERE / name).read_bytes() for name in ("Dockerfile", "start")}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in context.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755 if name == "start" else 0o644
            tar.addfile(member, io.BytesIO(data))
    archive.seek(0)
    target = tag.partition(":")[0].rpartition("/")[2]
    docker.from_env().images.build(fileobj=archive, custom_context=True, tag=tag, target=target, rm=True, forcerm=True)


def wheels(directory: Path) -> None:
    """This checkout's wheel and all that it needs, for the machine's Python, into `directory`.

    By this host's pip: it knows where its packages come from, and whom to trust for them.
    """
    kinds = [f"manylinux_{version}_{platform.machine()}" for version in ("2_34", "2_28", "2_17")]
    kinds += [f"manylinux2014_{platform.machine()}"]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    for words in (
        ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, PROJECT),
        (
            *("download", "--dest", directory, "--only-binary=:all:", f"--python-version={PYTHON}"),
            *("--implementation=cp", *(f"--platform={kind}" for kind in kinds)),
            *("--constraint", PROJECT / "requirements-dev.txt"),
            *project["dependencies"],
            *project["optional-dependencies"]["compose"],
        ),
    ):
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
        assert done.returncode == 0, done.stderr[-2000:]


@contextlib.contextmanager
def machine(owner: str, *mounts: Path, image: str = IMAGE, tmpfs: dict[str, str] | None = None) -> Iterator[Machine]:
    """A nested machine for as long as `with` lasts, with folders of this host's at the same places, to be read.

    One that is made from REMOTE or BARE can be reached by SSH, by its users' names as Host. Skips the test where the
    host does not allow one.
    """
    if os.geteuid() != 0:
        pytest.skip("a nested engine needs root on this host")
    client = docker.from_env()
    name = f"mailstack-nested-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as undo:
        # Short: a socket's name has 107 characters at most (unix(7)).
        shared = Path(tempfile.mkdtemp(prefix="nested-", dir="/tmp"))
        undo.callback(shutil.rmtree, shared, ignore_errors=True)
        path = shared / "docker.sock"
        places = [f"{place}:{place}:ro" for place in mounts] + [f"{each}:{each}" for each in (shared, "/sys/fs/cgroup")]
        ssh = image in (REMOTE, BARE)
        if ssh:
            _key(shared)
        host = {
            **client.api.create_host_config(
                binds=places,
                port_bindings={22: ("127.0.0.1", None)} if ssh else None,
                tmpfs=tmpfs,
                **PRIVILEGES,
            ),
            # `systempaths=unconfined` of Docker's command: nothing of /proc and /sys is hidden, or read-only.
            "MaskedPaths": [],
            "ReadonlyPaths": [],
        }
        labels = {LABEL_LAB: name, LABEL_OWNER: owner, LABEL_EXPIRES: "never"}
        made = client.api.create_container(
            image,
            [str(path), name, *([str(shared)] if ssh else [])],
            name=name,
            hostname="nested",
            labels=labels,
            host_config=host,
            ports=[22] if ssh else None,
        )
        container = client.containers.get(made["Id"])
        undo.callback(_remove_control_groups, name)
        undo.callback(_end, container)
        container.start()
        if image == BARE:
            _listening(container)
            engine = None
        else:
            engine = answering(container, str(path))
        yield Machine(container, engine, str(path), _home(container, shared) if ssh else None)


def _key(shared: Path) -> None:
    """A key that the machine's users may log in with."""
    shared.chmod(0o755)  # sshd reads it as the user
    private = Ed25519PrivateKey.generate()
    write_private(shared / "id", private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode())
    (shared / "authorized_keys").write_text(public_key(private))


def public_key(private: Ed25519PrivateKey | None = None) -> str:
    """A key's line for authorized_keys and known_hosts: of a new key, where none is given."""
    key = (private or Ed25519PrivateKey.generate()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + "\n"


def _home(container: Any, shared: Path) -> Path:
    """A home with what ssh needs: the machine's key is known, and its users are Hosts (ssh_config(5))."""
    port = int(container.ports["22/tcp"][0]["HostPort"])
    ssh = shared / "home" / ".ssh"
    ssh.mkdir(parents=True, mode=0o700)
    kind, key, *_ = (shared / "host_key.pub").read_text().split()
    (ssh / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    (ssh / "config").write_text(
        "".join(
            f"Host {user}\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n  IdentityFile {shared / 'id'}\n"
            for user in USERS
        )
    )
    return shared / "home"


def _listening(container: Any) -> None:
    """Wait until sshd(8) greets."""
    deadline = Deadline.after(START_SECONDS)
    while True:
        container.reload()
        assert container.status == "running", f"the machine ended: {container.logs().decode()[-2000:]}"
        with contextlib.suppress(OSError, KeyError, IndexError, TypeError):
            port = int(container.ports["22/tcp"][0]["HostPort"])
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                if connection.recv(4) == b"SSH-":  # RFC 4253, section 4.2
                    return
        assert not deadline.passed(), f"no sshd after {START_SECONDS:g} s: {container.logs().decode()[-2000:]}"
        time.sleep(0.05)  # its port is the engine's before it is sshd's


def answering(container: Any, path: str) -> docker.DockerClient:
    """The machine's engine, once it answers."""
    deadline = Deadline.after(START_SECONDS)
    while True:
        container.reload()
        assert container.status == "running", f"the nested engine ended: {container.logs().decode()[-2000:]}"
        with contextlib.suppress(docker.errors.DockerException, OSError):
            engine = docker.DockerClient(base_url=f"unix://{path}", timeout=120)
            if engine.ping():
                return engine
        assert not deadline.passed(), f"no nested engine after {START_SECONDS:g} s: {container.logs().decode()[-2000:]}"
        time.sleep(0.05)  # its socket comes before its answer


def _end(container: Any) -> None:
    """Stop the engine, so that it ends its own containers, and remove it with its volume."""
    with contextlib.suppress(docker.errors.APIError):
        container.stop(timeout=10)
    container.remove(force=True, v=True)


def _remove_control_groups(name: str) -> None:
    """What a nested engine leaves behind under /sys/fs/cgroup, in every hierarchy (cgroups(7)): empty directories."""
    places = [
        place for place in (Path("/sys/fs/cgroup") / name, *Path("/sys/fs/cgroup").glob(f"*/{name}")) if place.is_dir()
    ]
    for place in places:
        for directory in sorted((p for p in place.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)):
            with contextlib.suppress(OSError):
                directory.rmdir()
        with contextlib.suppress(OSError):
            place.rmdir()
