"""The command's beginning: `mailstack`, and `python -m mailstack`."""

from __future__ import annotations

import gc
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; Ctrl-C while it is still being imported ends it, without a traceback."""
    # Garbage collection is rarer than by default (every 700 new objects), which slows imports down.
    gc.set_threshold(50_000, 20, 20)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by who started this, no child would have an exit code
    from mailstack.cli import stdio

    stdio.prepare()
    from mailstack.cli import main as cli

    cli.main()


if __name__ == "__main__":
    main()
