"""The command's beginning: `mailstack`, and `python -m mailstack`."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; who interrupts while it is still being read in sees it end, and no traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by who started this, no child would have an exit code
    from mailstack import cli

    cli.main()


if __name__ == "__main__":
    main()
