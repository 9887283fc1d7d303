"""A nested machine with this checkout's wheel installed on it, and the lab's images in its engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mailstack import state
from mailstack.images import base
from mailstack.runner.local import Local
from tests import engines
from tests.docker import nested


@contextlib.contextmanager
def installed(images: Sequence[str], dist: Path) -> Iterator[nested.Machine]:
    """Yield the machine within `with`. Its engine has these images of the host's; the wheels are put into `dist`."""
    nested.wheels(dist)
    base.ensure_base(engines.here(), Local(), lambda _: None)
    nested.build()
    with nested.machine(state.owner(), dist) as made:
        made.load(images)
        pip = ("/opt/mailstack/bin/pip", "install", "--quiet", "--no-index", "--find-links", str(dist))
        made.run(*pip, "mailstack[compose]")
        yield made
