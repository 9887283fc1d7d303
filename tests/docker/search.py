"""Search for secrets: in files, in the engine's answers, and in every process."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import docker

from mailstack.config import files
from mailstack.lab.running import RunningLab


@dataclass
class Search:
    """Searches for secrets in the forms in which programs pass them on; reports the place and never the value."""

    needles: dict[bytes, str] = field(default_factory=dict)  # form -> name

    def add(self, name: str, value: str, users: Iterable[str] = ()) -> None:
        """Add a secret, for `users` also as SASL PLAIN (RFC 4616), whose encoding differs from that of the value."""
        for text in (value, *(f"\0{user}\0{value}" for user in users)):
            self.needles[text.encode()] = name
            self.needles[base64.b64encode(text.encode())] = name

    def of(self, lab: RunningLab) -> None:
        """Add all secrets that are in a lab's directory now."""
        self.in_directory(lab.directory.files)

    def in_directory(self, directory: Path) -> None:
        """Add all secrets that a lab's containers mount now."""
        for address, password in files.passwords(directory).items():
            self.add(address, password.reveal(), [address])
        relay = files.read_relay(directory)
        assert relay
        self.add("relay", relay[1].reveal(), [relay[0]])
        for service in files.SERVER_NAMES:
            pem = (directory / f"{service}.pem").read_text()
            key = re.search(r"BEGIN PRIVATE KEY-----\n(.*?)\n-----END", pem, re.S)
            assert key
            for line in key[1].splitlines()[1:]:  # the first line of every P-256 key is much the same
                self.needles[line.encode()] = f"the key of {service}"

    def in_places(self, places: Mapping[str, bytes]) -> list[str]:
        """Return `NAME in PLACE` for each secret found."""
        return sorted(
            {
                f"{name} in {place}"
                for place, data in places.items()
                for needle, name in self.needles.items()
                if needle in data
            }
        )

    def in_stream(self, chunks: Iterable[bytes]) -> bool:
        """Return whether a stream of any length contains a secret."""
        with self.patterns() as patterns:
            grep = subprocess.Popen(
                ["grep", "--quiet", "--text", "--fixed-strings", f"--file=/dev/fd/{patterns}"],
                stdin=subprocess.PIPE,
                pass_fds=[patterns],
            )
            assert grep.stdin
            with contextlib.suppress(BrokenPipeError):  # it found one, and reads no further
                for chunk in chunks:
                    grep.stdin.write(chunk)
                grep.stdin.close()
            code = grep.wait()
        assert code in (0, 1)
        return code == 0

    @contextlib.contextmanager
    def patterns(self) -> Iterator[int]:
        """Yield a file without a name that has the single-line patterns, one to a line."""
        fd = os.memfd_create("needles")
        try:
            os.write(fd, b"\n".join(needle for needle in self.needles if b"\0" not in needle) + b"\n")
            os.lseek(fd, 0, os.SEEK_SET)
            yield fd
        finally:
            os.close(fd)


def of_engine(container_ids: Iterable[str], api: docker.APIClient | None = None) -> dict[str, bytes]:
    """Return all that any user may ask the engine about containers, with their networks, volumes and images."""
    api = api or docker.from_env().api
    found: dict[str, bytes] = {}

    def put(place: str, document: object) -> None:
        found[place] = json.dumps(document).encode()

    for container in container_ids:
        about = api.inspect_container(container)
        name = about["Name"].lstrip("/")
        put(f"inspect {name}", about)
        put(f"top {name}", api.top(container, ps_args="axeww"))
        put(f"diff {name}", api.diff(container))
        found[f"logs {name}"] = api.logs(container)
        image = about["Image"]
        put(f"image of {name}", [api.inspect_image(image), api.history(image)])  # type: ignore[no-untyped-call]
        for network in about["NetworkSettings"]["Networks"]:
            put(f"network {network}", api.inspect_network(network))
        for mount in about["Mounts"]:
            if mount["Type"] == "volume":
                put(f"volume {mount['Name']}", api.inspect_volume(mount["Name"]))
    return found


def of_processes() -> dict[str, bytes]:
    """Return arguments and environment of each process on this machine, including those in containers (proc(5))."""
    found: dict[str, bytes] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            for kind in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    # The name of the command, for two processes may have had one number.
                    data = (process / kind).read_bytes()
                    found[f"{kind} of {process.name} {hash(data)}"] = data
    return found


class Watch:
    """Reads all processes repeatedly within `with`."""

    def __init__(self, search: Callable[[], Search]) -> None:
        self._search, self._over = search, threading.Event()
        self.places: dict[str, bytes] = {}
        self.rounds = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            self.places.update(of_processes())
            self.rounds += 1
            self._over.wait(0.01)

    def found(self) -> list[str]:
        """Return the secrets that were seen in a process."""
        return self._search().in_places(self.places)


def command(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run `mailstack WORDS` with any exit code."""
    return subprocess.run(
        [sys.executable, "-m", "mailstack", *map(str, words)], capture_output=True, timeout=180, check=False
    )


def containers(lab: RunningLab) -> list[str]:
    """Return the ids of a lab's containers."""
    return [service.container for service in lab.services()]
