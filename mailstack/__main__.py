"""Entry point of the command line: `mailstack`, and `python -m mailstack`."""

from __future__ import annotations

import gc
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line. Ctrl-C during the imports ends it without a traceback."""
    # By default, garbage is collected every 700 new objects, which slows imports down.
    gc.set_threshold(50_000, 20, 20)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent that ignores it would hide our children's exit codes
    from mailstack.cli import stdio

    stdio.prepare()
    from mailstack.cli import main as cli

    cli.main()


if __name__ == "__main__":
    main()
