"""Build the images: their content tag, the build, and their size.

An engine on another host that cannot get the base image is sent this machine's images, or its base image.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from mailstack.engine.engine import Engine
from mailstack.errors import CommandFailed, HostError
from mailstack.images import transfer
from mailstack.images.base import BASE, ensure_base, has_or_pulls, make_base
from mailstack.model import Command, Progress
from mailstack.runner.local import Runner, last_lines, shell_line
from mailstack.text import hint

# “Step 3/10 : RUN …” is the classic builder's, “#7 [postfix 3/6] RUN …” is BuildKit's.
_STEP = re.compile(r"Step \d+/\d+ : (FROM|RUN|COPY)|#\d+ \[.*\d+/\d+\]|Successfully tagged")


def content_tag(stack: Path) -> str:
    """Return a tag for the build contexts below `stack`. It changes if, and only if, an image would."""
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
    own_engine: Engine | None = None,
) -> bool:
    """Build the images by `build` (`compose build`) unless all exist. Return whether anything was built.

    `own_engine` is this machine's engine when `engine` is on another host. An engine that cannot get the base image, or
    cannot build, is sent the images if they exist here. Raises CommandFailed with the last lines of a failed build.
    """
    if all(engine.has_image(reference) for reference in references):
        return False
    if own_engine is not None:
        _ensure_remote(engine, runner, build, references, progress, base, own_engine)
    else:
        ensure_base(engine, runner, progress, base=base)
        _build(engine, runner, build, references, progress)
    return True


def _ensure_remote(
    engine: Engine,
    runner: Runner,
    build: Command,
    references: Sequence[str],
    progress: Progress,
    base: str,
    own_engine: Engine,
) -> None:
    """Ensure that another host has the images, and send as little as possible there."""
    where = engine.target.host or "the other engine"

    def send_from_here(wanted: Sequence[str]) -> bool:
        if not transfer.can_send(own_engine, engine, wanted):
            return False
        transfer.send(own_engine, engine, wanted, unique_bytes(own_engine, wanted), progress, where)
        return True

    missing = [reference for reference in references if not engine.has_image(reference)]
    if has_or_pulls(engine, progress, base):
        try:
            _build(engine, runner, build, references, progress)
        except CommandFailed as error:
            progress(f"they cannot be built on {where}")
            if not send_from_here(missing):
                error.remedy = f"build them on this machine (`{hint.line('up')}`, without --host): they are then sent"
                raise
    elif not send_from_here(missing):
        if not send_from_here([base]):
            _same_processor(engine, where, base)
            make_base(engine, runner, progress, base=base)
        _build(engine, runner, build, references, progress)


def _same_processor(engine: Engine, where: str, base: str) -> None:
    """Raise HostError when the other host's architecture is not this machine's, for which images are built here."""
    theirs, ours = engine.info().get("Architecture"), platform.machine()
    if theirs != ours:
        raise HostError(
            f"{where}: its processor is {theirs}; {base}, which it cannot pull, could be made here for {ours} only",
            remedy=f"bring {base} there with `docker save` and `docker load`",
        )


def _build(engine: Engine, runner: Runner, build: Command, references: Sequence[str], progress: Progress) -> None:
    def on_line(line: str) -> None:
        # A build prints a thousand lines: show only its steps, and keep all lines for the error message.
        if _STEP.match(text := _plain(line)):
            progress(text)

    # The classic builder of Compose reports on standard output, BuildKit on standard error: merge them in order.
    merged = Command(("sh", "-c", 'exec "$@" >&2', "sh", *build.argv), build.environment, build.input)
    result = runner.run(merged, on_line=on_line)
    if result.code != 0:
        raise CommandFailed(
            f"the images could not be built: `{shell_line(build)}` exited with code {result.code}",
            details=last_lines(_plain(result.stderr)),
        )
    if missing := [reference for reference in references if not engine.has_image(reference)]:
        raise HostError(f"`{shell_line(build)}` did not make {', '.join(missing)}")


def unique_bytes(engine: Engine, references: Sequence[str]) -> int:
    """Return the bytes that the images take together. A layer that several images share counts once."""
    layers: dict[str, int] = {}
    for reference in references:
        layers.update(engine.image_layers(reference))
    return sum(layers.values())


def _plain(text: str) -> str:
    """Return text without colours (ECMA-48, SGR) and surrounding blanks."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()
