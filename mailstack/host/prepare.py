"""Prepare an engine and its base image with the standard library alone: `make up` does so while pip runs."""

from __future__ import annotations

import os
import signal
import sys

from mailstack.definition import bundled
from mailstack.engine.engine import Engine
from mailstack.errors import Interrupted, MailstackError
from mailstack.host import provision
from mailstack.host.machine import LocalMachine
from mailstack.images import build
from mailstack.images.base import ensure_base
from mailstack.runner.local import Local
from mailstack.target import target


def main() -> int:
    """Prepare this machine's engine. Return the exit code; `up` repeats the steps that fail, and reports the error."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        local = target.local(os.environ)
        if not os.environ.get(target.VARIABLE) and local.shares_kernel:
            _prepare(Engine(local))
    except KeyboardInterrupt:
        return Interrupted.exit_code
    except ImportError as error:
        _report(f"postponed: {error}")
    except (MailstackError, OSError) as error:
        _report(str(error))
    return 0


def _prepare(engine: Engine) -> None:
    runner = Local()
    provision.provision(LocalMachine(engine.target, runner), _report)
    if not all(map(engine.has_image, bundled.images(build.content_tag(bundled.stack())).values())):
        ensure_base(engine, runner, _report)


def _report(line: str) -> None:
    print(f"{line[:76]} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
