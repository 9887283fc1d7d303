"""The base image: from the engine, from a registry, or built from Debian's packages (mmdebstrap(1))."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mailstack.engine.engine import Engine
from mailstack.errors import EngineError, HostError
from mailstack.model import Command, Progress
from mailstack.runner.local import Runner, run_checked
from mailstack.storage.directories import SHARED_MEMORY

BASE = "debian:trixie-slim"
_SUITE = "trixie"
_TREE_BYTES = 1 << 30  # of which a quarter is used

# Directories that dpkg excludes from the slim image, in the official one and in ours. Licences are kept.
_EXCLUDED = ("groff", "info", "linda", "lintian", "locale", "man")
_DPKG = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    *(f"path-exclude=/usr/share/{kind}/*" for kind in _EXCLUDED),
)
# Runs in the unpacked tree. As options of mmdebstrap, these settings would filter each archive by a Python program,
# which takes longer than all other unpacking.
_SLIM = " && ".join(
    (
        'cd "$1"',
        shlex.join(("printf", "%s\\n", *_DPKG)) + " > etc/dpkg/dpkg.cfg.d/docker",
        "find usr/share/doc -type f ! -name copyright -delete",
        "find usr/share/doc -type l -delete",
        "find " + " ".join(f"usr/share/{kind}" for kind in _EXCLUDED) + " -mindepth 1 -delete 2>/dev/null || true",
    )
)

# The other settings of the official image, so that a layer is the same on either base. They are added to the finished
# archive: mmdebstrap's apt, which reads the tree's settings, would run the clean-up on this host.
_ARCHIVES = "/var/cache/apt/archives"
_CLEAN = f"rm -f {_ARCHIVES}/*.deb {_ARCHIVES}/partial/*.deb /var/cache/apt/*.bin || true"
_APT = f"""\
DPkg::Post-Invoke {{ "{_CLEAN}"; }};
APT::Update::Post-Invoke {{ "{_CLEAN}"; }};
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::GzipIndexes "true";
Acquire::Languages "none";
APT::AutoRemove::SuggestsImportant "false";
"""
_FILES = (
    ("./etc/apt/apt.conf.d/docker-clean", 0o644, _APT),
    ("./usr/sbin/policy-rc.d", 0o755, "#!/bin/sh\n# Packages that are installed start nothing.\nexit 101\n"),
)

_KEYRINGS = tuple(f"usr/share/keyrings/debian-archive-keyring.{ending}" for ending in ("gpg", "pgp"))


def ensure_base(engine: Engine, runner: Runner, progress: Progress, *, base: str = BASE) -> None:
    """Ensure that the engine has the base image: present, or pulled, or bootstrapped from Debian's packages."""
    if not has_or_pulls(engine, progress, base):
        make_base(engine, runner, progress, base=base)


def has_or_pulls(engine: Engine, progress: Progress, base: str = BASE) -> bool:
    """Return whether the engine has the base image or can pull it."""
    if engine.has_image(base):
        return True
    progress(f"pulling {base}")
    try:
        engine.pull(base)
    except EngineError as error:
        progress(f"{base} cannot be pulled ({error.message})")
        return False
    return True


def make_base(engine: Engine, runner: Runner, progress: Progress, *, base: str = BASE) -> None:
    """Build the base image here from Debian's packages, and import it into the engine."""
    progress(f"making {base} from Debian's packages")
    # Readable by others: the user of mmdebstrap's user namespace is another one, and reads its tools here.
    with tempfile.TemporaryDirectory(prefix="mailstack-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        tarball = directory / "base.tar"
        bootstrap(runner, _tools(runner, directory, progress), tarball, progress)
        add_settings(tarball)
        progress(f"importing {base}")
        engine.import_image(tarball, base)


# ── the base from Debian's packages ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Tools:
    """The paths of mmdebstrap and its environment."""

    mmdebstrap: str
    keyring: str
    path: str
    perl: str = ""  # PERL5LIB: the directories of Perl modules that the host does not have


def bootstrap_commands(tools: Tools, tarball: Path, *, root: bool, room: Path | None = None) -> list[Command]:
    """Return the commands that can build the base's tree with mmdebstrap, in the order of preference.

    `room` is the directory for the tree; without it, mmdebstrap chooses a temporary directory.
    """
    argv = (
        tools.mmdebstrap,
        "--variant=minbase",
        "--include=ca-certificates",
        "--dpkgopt=force-unsafe-io",
        f"--extract-hook={_SLIM}",
        # The host's own keyrings have Debian's keys only on Debian. Inside the tree, the keyring package brings them.
        f"--keyring={tools.keyring}",
        "--skip=check/signed-by",
    )
    environment = {"PATH": tools.path, "LC_ALL": "C.UTF-8", **({"PERL5LIB": tools.perl} if tools.perl else {})}
    if room:
        environment["TMPDIR"] = str(room)
    if root:
        return [Command((*argv, _SUITE, str(tarball)), environment)]
    settings = [f"{name}={value}" for name, value in environment.items()]  # sudo does not pass the environment on
    return [
        Command((*argv, "--mode=unshare", _SUITE, str(tarball)), environment),
        Command(("sudo", "-n", "env", *settings, *argv, _SUITE, str(tarball))),
    ]


def bootstrap(runner: Runner, tools: Tools, tarball: Path, progress: Progress, *, root: bool | None = None) -> None:
    """Write the base's tree to `tarball` by the first command that works. Raises HostError when none does."""
    as_root = os.geteuid() == 0 if root is None else root
    failures = []
    tarball.touch()  # created by this user, who stays its owner even if root writes it
    for command in bootstrap_commands(tools, tarball, root=as_root, room=_memory()):
        try:
            run_checked(runner, command, on_line=lambda line: progress(line.removeprefix("I: ")))
        except HostError as error:
            failures.append(error.happened())
        else:
            return
    raise HostError(
        f"{BASE} can neither be pulled nor built from Debian's packages by mmdebstrap",
        remedy=f"see below; or bring the image from elsewhere with `docker save {BASE}` and `docker load`"
        + ("" if as_root else "; or let mmdebstrap work without root (apt-get install uidmap), or use sudo"),
        details="\n".join(failures),
    )


def _memory() -> Path | None:
    """Return the shared memory if a tree fits into it and its programs may run there, else None.

    A tree has thousands of files that exist for seconds.
    """
    try:
        file_system = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    fits = file_system.f_bavail * file_system.f_frsize >= _TREE_BYTES and not file_system.f_flag & (
        os.ST_NOEXEC | os.ST_RDONLY
    )
    return SHARED_MEMORY if fits and os.access(SHARED_MEMORY, os.W_OK) and _free_memory() >= _TREE_BYTES else None


def _free_memory() -> int:
    """Return the bytes of memory that programs can use without swapping: proc(5), MemAvailable."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 0


def add_settings(tarball: Path) -> None:
    """Add the settings of the official image to a tree's archive."""
    with tarfile.open(tarball, "a") as archive:
        for name, mode, text in _FILES:
            member = tarfile.TarInfo(name)
            member.mode, member.size, member.uname, member.gname = mode, len(text), "root", "root"
            member.mtime = int(time.time())
            archive.addfile(member, io.BytesIO(text.encode()))


def _tools(runner: Runner, directory: Path, progress: Progress) -> Tools:
    """Find mmdebstrap and Debian's keys on this host, or unpack the missing ones below `directory`."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    binary = shutil.which("mmdebstrap", path=path)
    keyring = _keyring(Path("/"))
    if binary and keyring:
        return Tools(binary, str(keyring), path)
    missing = [*([] if binary else ["mmdebstrap"]), *([] if keyring else ["debian-archive-keyring"])]
    progress(f"fetching {' and '.join(missing)} (nothing is installed)")
    tree = fetch_packages(runner, missing, directory)
    path = os.pathsep.join((str(tree / "usr/bin"), str(tree / "usr/sbin"), path))
    binary = shutil.which("mmdebstrap", path=path)
    keyring = keyring or _keyring(tree)
    if not binary or not keyring:
        raise HostError(f"the packages {' and '.join(missing)} do not contain what was expected", remedy=_REMEDY)
    modules = [*tree.glob("usr/share/perl5"), *tree.glob("usr/share/perl/*"), *tree.glob("usr/lib/*/perl*/*")]
    return Tools(binary, str(keyring), path, os.pathsep.join(str(module) for module in modules))


_REMEDY = f"install mmdebstrap (`apt-get install mmdebstrap`), or `docker load` the image {BASE}"


def fetch_packages(runner: Runner, packages: Sequence[str], directory: Path) -> Path:
    """Unpack Debian packages, with the dependencies that this host lacks, below `directory`. Return the tree.

    Nothing is installed, and no root is needed. The host's package lists stay as they are: when they are empty or
    outdated, newer ones are downloaded into `directory`.
    """
    archives, tree, lists = directory / "archives", directory / "tree", directory / "lists"
    for made in (archives / "partial", tree, lists / "partial"):
        made.mkdir(parents=True)
    apt: tuple[str, ...] = (
        "apt-get",
        "--quiet",
        "--yes",
        "-oDebug::NoLocking=true",
        f"-oDir::Cache::archives={archives}",
    )
    # Download packages that are recorded as installed, too: their files were searched for, and are missing.
    download = ("install", "--download-only", "--reinstall", "--no-install-recommends", *packages)
    try:
        if runner.run(Command((*apt, *download))).code != 0:
            apt = (*apt, f"-oDir::State::lists={lists}", "-oDir::Cache::pkgcache=", "-oDir::Cache::srcpkgcache=")
            runner.run(Command((*apt, "update")))  # a failing source is ignored if the next command succeeds
            run_checked(runner, Command((*apt, *download)))
        for archive in sorted(archives.glob("*.deb")):
            run_checked(runner, Command(("dpkg-deb", "--extract", str(archive), str(tree))))
    except HostError as error:
        raise HostError(
            f"{BASE} cannot be pulled, and {' and '.join(packages)}, to make it with, cannot be fetched",
            remedy=_REMEDY,
            details=error.happened(),
        ) from None
    return tree


def _keyring(tree: Path) -> Path | None:
    return next((tree / name for name in _KEYRINGS if (tree / name).exists()), None)
