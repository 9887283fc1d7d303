"""An engine and its base image by Python's standard library alone: `make up` runs this while pip installs the rest."""

from __future__ import annotations

import os
import signal
import sys

from mailstack import definition, hosting, images, provision
from mailstack.base import ensure_base
from mailstack.engine import Engine, engine_url
from mailstack.errors import Interrupted, MailstackError
from mailstack.machine import Here
from mailstack.runner import Local


def main() -> int:
    """Prepare this machine's engine; give the exit code. `up` does again what fails here, and says why it fails."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not os.environ.get(hosting.VARIABLE) and engine_url().startswith("unix://"):
            _prepare()
    except KeyboardInterrupt:
        return Interrupted.exit_code
    except ImportError as error:
        _say(f"left for later: {error}")
    except (MailstackError, OSError) as error:
        _say(str(error))
    return 0


def _prepare() -> None:
    runner, engine = Local(), Engine()
    provision.provision(Here(runner), _say)
    if not all(map(engine.has_image, images.references(images.content_tag(definition.stack())).values())):
        ensure_base(engine, runner, _say)


def _say(line: str) -> None:
    print(f"{line[:76]} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
