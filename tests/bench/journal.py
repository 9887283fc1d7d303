"""Volumes on a file system with a journal: nearly every machine has one, and some virtual machines do not.

Without, ext4 does not give a new file the inode of one that was deleted within the last minutes, and looks at each of
these again for every file that is made (`recently_deleted` in the kernel's fs/ext4/ialloc.c). A queue that makes and
deletes hundreds of files a second is then slowed down by its own past, whatever the settings of its servers.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.measuring import run

# Room for the mails of a run; a file with holes, so that only what is written takes any.
SIZE = 4 * 2**30
VOLUMES = ("queue", "mailboxes", "outbox")


def has_journal(directory: Path, proc: Path = Path("/proc")) -> bool:
    """Whether the file system of a directory is another than ext4, or one with a journal (proc_pid_mountinfo(5))."""
    device = directory.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in (proc / "self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == number:
            kind, source = fields[fields.index("-") + 1 :][:2]
            return kind != "ext4" or any((proc / "fs/jbd2").glob(f"{Path(source).resolve().name}-*"))
    return True


def engines_has_one() -> bool:
    """Whether volumes of the engine are on such a file system anyway."""
    root = Path(run(["docker", "info", "--format", "{{.DockerRootDir}}"]).strip())
    return not root.exists() or has_journal(root)  # an engine elsewhere: nothing is known of it


@contextlib.contextmanager
def volumes(labs: Sequence[str]) -> Iterator[dict[str, Path]]:
    """For each lab an overlay that puts its volumes on an ext4 with a journal, in a file of this machine.

    Raises OSError, subprocess.CalledProcessError when there can be none: it takes root and a loop device.
    """
    with tempfile.TemporaryDirectory(prefix="mailstack-bench-", dir="/var/tmp") as name:
        image, mounted = Path(name, "image"), Path(name, "mounted")
        with image.open("wb") as file:
            file.truncate(SIZE)
        mounted.mkdir()
        _do("mkfs.ext4", "-q", image)
        _do("mount", "-o", "loop", image, mounted)
        try:
            yield {lab: _overlay(lab, mounted, Path(name)) for lab in labs}
        finally:
            _do("umount", mounted)


def _overlay(lab: str, mounted: Path, directory: Path) -> Path:
    found = {}
    for volume in VOLUMES:
        device = mounted / lab / volume
        device.mkdir(parents=True)
        found[volume] = {"driver_opts": {"type": "none", "o": "bind", "device": str(device)}}
    overlay = directory / f"{lab}.yaml"
    overlay.write_text(json.dumps({"volumes": found}))  # which is YAML, too
    return overlay


def _do(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
