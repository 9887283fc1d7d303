"""A nested machine with this checkout's wheel installed on it, and the lab's images in its engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mailstack import state
from mailstack.definition import bundled
from mailstack.images import base, build
from mailstack.model import SERVICES
from mailstack.runner.local import Local
from tests import engines
from tests.docker import nested
from tests.docker.conftest import Labs


@contextlib.contextmanager
def installed(labs: Labs, dist: Path) -> Iterator[nested.Machine]:
    """Yield the machine within `with`; the wheels are put into `dist`."""
    nested.wheels(dist)
    base.ensure_base(engines.here(), Local(), lambda _: None)
    nested.build()
    with labs.one("for-nested"):  # the images are there after that
        pass
    with nested.machine(state.owner(), dist) as made:
        tag = build.content_tag(bundled.stack())
        made.load([f"mailstack/{service}:{tag}" for service in SERVICES])
        pip = ("/opt/mailstack/bin/pip", "install", "--quiet", "--no-index", "--find-links", str(dist))
        made.run(*pip, "mailstack[compose]")
        yield made
