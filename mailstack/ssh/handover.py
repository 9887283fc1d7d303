"""Send a lab's files to a host over SSH, and remove them. The containers there read them."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from mailstack.errors import HostError
from mailstack.model import Command, Deadline, Result
from mailstack.runner.local import last_lines, run_checked
from mailstack.ssh.connection import SECONDS, Connection
from mailstack.state import owner

if TYPE_CHECKING:
    import tarfile

# Take all files of a lab. Files are overwritten in place, because containers know a file by its inode. The lab's
# directory has a marker (see `directories`); a directory without it does not belong to mailstack.
_TAKE = """\
set -e
umask 077
lab=${1%/files}
mkdir -p "${lab%/*}"
if ! mkdir "$lab" 2>/dev/null && ! [ -f "$lab/.mailstack" ] && [ -n "$(ls -A "$lab")" ]; then
  echo "$lab: was not created by mailstack" >&2
  exit 1
fi
: >> "$lab/.mailstack"
mkdir -p "$1"
cd "$1"
trap 'rm -f ../.told ../.taken' EXIT
tar --overwrite -xvf - > ../.told
sort ../.told > ../.taken
find . -type f | sort | comm -23 - ../.taken | xargs -r -d '\\n' rm -f --
"""
_ABSENT = 9
# Take some files; one of them (`.gone`) lists the names to remove. Fails when the lab has no files on the host.
_UPDATE = f"""\
set -e
umask 077
[ -f "${{1%/files}}/.mailstack" ] && cd "$1" || exit {_ABSENT}
tar --overwrite -xf -
xargs -d '\\n' rm -f -- .gone < .gone
"""
_GONE = ".gone"
# POSIX df: blocks of 1024 bytes; the fourth column of the last line is the available space. The parent is the fallback
# when the user may not access the directory.
_FREE = 'df -Pk "$1" 2>/dev/null || df -Pk "${1%/*}"'
# Remove a lab's directory if it has the marker. Versions before the marker are recognised by the lab's CA. Directories
# with other content stay. No symbolic link is followed.
_FORGET = """\
forget() {
  [ -O "$1" ] && [ ! -L "$1" ] && [ ! -L "$1/$2" ] && [ ! -L "$1/$2/$3" ] && [ -f "$1/$2/$3/$4" ] || return 0
  rm -rf -- "$1/$2/$3/files" && rm -rf -- "$1/$2/$3" || exit  # what makes it known goes last
  rmdir -- "$1/$2" "$1" 2>/dev/null || :
}
forget "$1" "$2" "$3" .mailstack
forget "/dev/shm/mailstack-$(id -u)" "$2" "$3" files/ca.pem
"""


def send(connection: Connection, files: Path, place: str, names: Collection[str] | None) -> None:
    """Make the files in `place` on the host the same as those in `files`: all of them, or only `names`.

    Raises HostError, DeadlinePassed.
    """
    if names is not None:
        archive = archive_of(files, names)
        result = _put(connection, _UPDATE, place, archive)
    if names is None or result.code == _ABSENT:
        archive = full_archive(files)
        result = _put(connection, _TAKE, place, archive)
    if result.code == 0:
        return
    free, size = free_bytes(connection, connection.place), len(archive)
    full = f": its shared memory is full, {free // 1024} KiB are free and {size // 1024} are needed"
    raise HostError(
        f"{connection.host}: the lab's files cannot be put into {connection.place}" + (full if free < size else ""),
        remedy="free some space there: see `df /dev/shm`",
        details=last_lines(result.stderr, 3),
    )


def _put(connection: Connection, script: str, place: str, archive: bytes) -> Result:
    command = Command(("sh", "-c", script, "mailstack", place), input=archive)
    return connection.run(command, deadline=Deadline.after(SECONDS))


def full_archive(files: Path) -> bytes:
    """Return all files of a directory as a tar archive."""
    import tarfile

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(files, ".", filter=_without_owner)
    return archive.getvalue()


def archive_of(files: Path, names: Collection[str]) -> bytes:
    """Return the files with these names as a tar archive. `.gone` in it lists the names that do not exist."""
    import tarfile

    present = [name for name in names if (files / name).exists()]
    missing = "".join(f"./{name}\n" for name in sorted(set(names) - set(present))).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in present:
            tar.add(files / name, f"./{name}", recursive=False, filter=_without_owner)
        member = tarfile.TarInfo(f"./{_GONE}")
        member.size = len(missing)
        tar.addfile(member, io.BytesIO(missing))
    return archive.getvalue()


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def forget(connection: Connection, lab: str) -> None:
    """Remove a lab's files from the host. Raises HostError, DeadlinePassed."""
    command = Command(("sh", "-c", _FORGET, "mailstack", connection.place, owner(), lab))
    run_checked(connection, command, deadline=Deadline.after(SECONDS))


def free_bytes(connection: Connection, path: str) -> int:
    """Return the free space of the host's file system with this path, in bytes. Raises HostError."""
    output = connection.run(Command(("sh", "-c", _FREE, "df", path)), deadline=Deadline.after(SECONDS)).stdout
    words = output.strip().rpartition("\n")[2].split()
    return int(words[3]) * 1024 if len(words) > 3 else 0
