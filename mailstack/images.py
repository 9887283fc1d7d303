"""The images: the tag that names their content, the base they stand on, their build and their size.

The base is taken where it is found first: on the engine, in a registry, in Debian's packages (mmdebstrap(1)). An engine
on another host that has no way to it is sent the images that this machine's engine has, or its base.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mailstack import hint, transfer
from mailstack.engine import Engine
from mailstack.errors import CommandFailed, EngineError, HostError
from mailstack.model import Command, Progress
from mailstack.runner import Runner, last_lines, must, shown

BASE = "debian:trixie-slim"
_SUITE = "trixie"

# “Step 3/10 : RUN …” by the classic builder, “#7 [postfix 3/6] RUN …” by BuildKit.
_STEP = re.compile(r"Step \d+/\d+ : (FROM|RUN|COPY)|#\d+ \[.*\d+/\d+\]|Successfully tagged")

# What dpkg leaves out of the slim image, in the official one and in ours; licences stay in.
_DPKG = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    *(f"path-exclude=/usr/share/{kind}/*" for kind in ("groff", "info", "linda", "lintian", "locale", "man")),
)

# The official image's other settings, so that a layer ends up alike on either base. They are added to the finished
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
    ("./etc/dpkg/dpkg.cfg.d/docker-apt-speedup", 0o644, "force-unsafe-io\n"),
    ("./usr/sbin/policy-rc.d", 0o755, "#!/bin/sh\n# Packages that are installed start nothing.\nexit 101\n"),
)

_KEYRINGS = tuple(f"usr/share/keyrings/debian-archive-keyring.{ending}" for ending in ("gpg", "pgp"))


def content_tag(stack: Path) -> str:
    """A tag made from the build contexts below `stack`: it changes if, and only if, an image would."""
    digest = hashlib.sha256()
    for path in sorted(path for path in stack.rglob("*") if path.is_file()):
        data = path.read_bytes()
        mode = "x" if path.stat().st_mode & 0o111 else "-"
        digest.update(f"{path.relative_to(stack).as_posix()}\0{mode}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:12]


def ensure_images(
    engine: Engine,
    runner: Runner,
    build: Command,
    references: Sequence[str],
    progress: Progress,
    *,
    base: str = BASE,
    here: Engine | None = None,
) -> bool:
    """Make the images by `build` (`compose build`) unless all are there; say whether anything was made.

    `here` is this machine's engine where `engine` is another host's. One that has no way to the base image, or cannot
    build, is sent the images, if they are here. Raises CommandFailed with the last lines of the build when it fails.
    """
    if all(engine.has_image(reference) for reference in references):
        return False
    if here is not None:
        _make_there(engine, runner, build, references, progress, base, here)
    else:
        ensure_base(engine, runner, progress, base=base)
        _build(engine, runner, build, references, progress)
    return True


def _make_there(
    engine: Engine,
    runner: Runner,
    build: Command,
    references: Sequence[str],
    progress: Progress,
    base: str,
    here: Engine,
) -> None:
    """Have the images on another host, with as little as possible sent there."""
    where = engine.target.host or "the other engine"

    def sent(wanted: Sequence[str]) -> bool:
        if not transfer.possible(here, engine, wanted):
            return False
        transfer.send(here, engine, wanted, unique_bytes(here, wanted), progress, where)
        return True

    missing = [reference for reference in references if not engine.has_image(reference)]
    if pulled(engine, progress, base):
        try:
            _build(engine, runner, build, references, progress)
        except CommandFailed as error:
            progress(f"they cannot be built on {where}")
            if not sent(missing):
                error.remedy = f"have them on this machine (`{hint.line('up')}`, without --host): then they are sent"
                raise
    elif not sent(missing):
        if not sent([base]):
            _same_processor(engine, where, base)
            make_base(engine, runner, progress, base=base)
        _build(engine, runner, build, references, progress)


def _same_processor(engine: Engine, where: str, base: str) -> None:
    """What is made here is for this machine's processor. Raises HostError when that of another host is another."""
    theirs, ours = engine.info().get("Architecture"), platform.machine()
    if theirs != ours:
        raise HostError(
            f"{where}: its processor is {theirs}; {base}, which it cannot pull, could be made here for {ours} only",
            remedy=f"bring {base} there with `docker save` and `docker load`",
        )


def _build(engine: Engine, runner: Runner, build: Command, references: Sequence[str], progress: Progress) -> None:
    def on_line(line: str) -> None:
        # A build says a thousand lines; its steps are what one follows. All of it is kept for when it fails.
        if _STEP.match(text := _plain(line)):
            progress(text)

    # Compose's classic builder reports on standard output, BuildKit on standard error: both are wanted, in order.
    merged = Command(("sh", "-c", 'exec "$@" >&2', "sh", *build.argv), build.environment, build.input)
    result = runner.run(merged, on_line=on_line)
    if result.code != 0:
        raise CommandFailed(
            f"the images could not be built: `{shown(build)}` ended with code {result.code}",
            details=last_lines(_plain(result.stderr)),
        )
    if missing := [reference for reference in references if not engine.has_image(reference)]:
        raise HostError(f"`{shown(build)}` did not make {', '.join(missing)}")


def ensure_base(engine: Engine, runner: Runner, progress: Progress, *, base: str = BASE) -> None:
    """Have the base image on the engine: there already, else pulled, else bootstrapped from Debian's packages."""
    if not pulled(engine, progress, base):
        make_base(engine, runner, progress, base=base)


def pulled(engine: Engine, progress: Progress, base: str = BASE) -> bool:
    """Whether the engine holds the base image, or can pull it."""
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
    """Make the base image here, from Debian's packages, and have the engine import it."""
    progress(f"making {base} from Debian's packages")
    # Open to others: mmdebstrap's user namespace is somebody else, and reads its tools here.
    with tempfile.TemporaryDirectory(prefix="mailstack-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        tarball = directory / "base.tar"
        bootstrap(runner, _tools(runner, directory, progress), tarball, progress)
        add_settings(tarball)
        progress(f"importing {base}")
        engine.import_image(tarball, base)


def unique_bytes(engine: Engine, references: Sequence[str]) -> int:
    """The bytes that the images take together: each layer is counted once, however many of them share it."""
    layers: dict[str, int] = {}
    for reference in references:
        layers.update(engine.image_layers(reference))
    return sum(layers.values())


# ── the base from Debian's packages ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Tools:
    """Where mmdebstrap is, and the environment that it needs there."""

    mmdebstrap: str
    keyring: str
    path: str
    perl: str = ""  # PERL5LIB, for Perl's modules that are not the host's own


def bootstrap_commands(tools: Tools, tarball: Path, *, root: bool) -> list[Command]:
    """The ways of making the base's tree with mmdebstrap, in the order in which they are tried."""
    argv = (
        tools.mmdebstrap,
        "--variant=minbase",
        "--include=ca-certificates",
        *(f"--dpkgopt={line}" for line in _DPKG),
        # The host's own keyrings know Debian's keys on Debian only; inside the tree its own package brings them.
        f"--keyring={tools.keyring}",
        "--skip=check/signed-by",
    )
    environment = {"PATH": tools.path, "LC_ALL": "C.UTF-8", **({"PERL5LIB": tools.perl} if tools.perl else {})}
    if root:
        return [Command((*argv, _SUITE, str(tarball)), environment)]
    settings = [f"{name}={value}" for name, value in environment.items()]  # sudo passes no environment on
    return [
        Command((*argv, "--mode=unshare", _SUITE, str(tarball)), environment),
        Command(("sudo", "-n", "env", *settings, *argv, _SUITE, str(tarball))),
    ]


def bootstrap(runner: Runner, tools: Tools, tarball: Path, progress: Progress, *, root: bool | None = None) -> None:
    """Write the base's tree to `tarball`, by the first way that works. Raises HostError when none does."""
    as_root = os.geteuid() == 0 if root is None else root
    failures = []
    tarball.touch()  # it stays this user's, also when root fills it
    for command in bootstrap_commands(tools, tarball, root=as_root):
        try:
            must(runner, command, on_line=lambda line: progress(line.removeprefix("I: ")))
        except HostError as error:
            failures.append(error.happened())
        else:
            return
    raise HostError(
        f"{BASE} can neither be pulled nor be made from Debian's packages by mmdebstrap",
        remedy=f"see below; or bring the image from elsewhere with `docker save {BASE}` and `docker load`"
        + ("" if as_root else "; or let mmdebstrap work without root (apt-get install uidmap), or use sudo"),
        details="\n".join(failures),
    )


def add_settings(tarball: Path) -> None:
    """Add what the official image has beyond its packages to a tree's archive."""
    with tarfile.open(tarball, "a") as archive:
        for name, mode, text in _FILES:
            member = tarfile.TarInfo(name)
            member.mode, member.size, member.uname, member.gname = mode, len(text), "root", "root"
            member.mtime = int(time.time())
            archive.addfile(member, io.BytesIO(text.encode()))


def _tools(runner: Runner, directory: Path, progress: Progress) -> Tools:
    """Find mmdebstrap and Debian's keys on this host, or unpack what is missing below `directory`."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    found = shutil.which("mmdebstrap", path=path)
    keyring = _keyring(Path("/"))
    if found and keyring:
        return Tools(found, str(keyring), path)
    wanted = [*([] if found else ["mmdebstrap"]), *([] if keyring else ["debian-archive-keyring"])]
    progress(f"fetching {' and '.join(wanted)} (nothing is installed)")
    tree = fetch_packages(runner, wanted, directory)
    path = os.pathsep.join((str(tree / "usr/bin"), str(tree / "usr/sbin"), path))
    found = shutil.which("mmdebstrap", path=path)
    keyring = keyring or _keyring(tree)
    if not found or not keyring:
        raise HostError(f"the packages {' and '.join(wanted)} did not bring what was expected", remedy=_REMEDY)
    modules = [*tree.glob("usr/share/perl5"), *tree.glob("usr/share/perl/*"), *tree.glob("usr/lib/*/perl*/*")]
    return Tools(found, str(keyring), path, os.pathsep.join(str(module) for module in modules))


_REMEDY = f"install mmdebstrap (`apt-get install mmdebstrap`), or `docker load` the image {BASE}"


def fetch_packages(runner: Runner, packages: Sequence[str], directory: Path) -> Path:
    """Unpack Debian packages, with whatever of their dependencies this host lacks, below `directory`; give the tree.

    Nothing is installed, no root is needed, and the host's package lists stay as they are: when they know nothing, or
    something that has gone, newer ones are fetched into `directory`.
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
    # Also what is recorded as installed is wanted, if it was asked for: its files were looked for, and are not there.
    download = ("install", "--download-only", "--reinstall", "--no-install-recommends", *packages)
    try:
        if runner.run(Command((*apt, *download))).code != 0:
            apt = (*apt, f"-oDir::State::lists={lists}", "-oDir::Cache::pkgcache=", "-oDir::Cache::srcpkgcache=")
            runner.run(Command((*apt, "update")))  # one failing source does not matter if the next command succeeds
            must(runner, Command((*apt, *download)))
        for archive in sorted(archives.glob("*.deb")):
            must(runner, Command(("dpkg-deb", "--extract", str(archive), str(tree))))
    except HostError as error:
        raise HostError(
            f"{BASE} cannot be pulled, and {' and '.join(packages)}, to make it with, cannot be fetched",
            remedy=_REMEDY,
            details=error.happened(),
        ) from None
    return tree


def _keyring(tree: Path) -> Path | None:
    return next((tree / name for name in _KEYRINGS if (tree / name).exists()), None)


def _plain(text: str) -> str:
    """Text without its colours (ECMA-48's SGR), and without blanks around it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()
