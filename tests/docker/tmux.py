"""Terminals of 80 columns in tmux, in which a test types as a person does."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.docker.bad import until

# A prompt with nothing typed after it.
_READY = re.compile(r"^\S+@\S+:\S+[$#] ?$")


class Terminal:
    """A terminal with the shell of a person at `computer`."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        """Start it; its server's socket is in a directory of its own. `close` ends it."""
        self._socket = str(directory / "tmux")
        shell = {"PS1": r"you@computer:~$ ", "HISTFILE": "", "BASH_SILENCE_DEPRECATION_WARNING": "1"}
        self._environment = {**environment, **shell}
        self._tmux("-f", "/dev/null", "start-server", ";", "set-option", "-g", "history-limit", "20000", ";",
                   "new-session", "-d", "-x", "80", "-y", "24", "bash", "--norc", "--noprofile")  # fmt: skip
        assert until(self.ready, every=0.05)

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *words], env=self._environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def text(self) -> str:
        """Return what was shown so far, with each line in one that was wrapped."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-").rstrip("\n")

    def is_full_screen(self) -> bool:
        """Return whether a program like an editor has the whole screen."""
        return self._tmux("display-message", "-p", "#{alternate_on}").strip() == "1"

    def ready(self) -> bool:
        """Return whether the last line is a prompt that waits for a command."""
        return bool(_READY.match(self.prompt()))

    def prompt(self) -> str:
        """Return the last line, without blanks at its end."""
        # Not joined to a line before it that is exactly as wide as the terminal.
        return self._tmux("capture-pane", "-p").rstrip().rpartition("\n")[2]

    def type(self, keys: str) -> None:
        """Type text and Enter; or one key: `Ctrl-X`, or `Enter`."""
        if control := re.fullmatch(r"Ctrl-(.)", keys):
            self._tmux("send-keys", f"C-{control[1].lower()}")
        elif keys == "Enter":
            self._tmux("send-keys", "Enter")
        else:
            self._tmux("send-keys", "-l", keys)
            self._tmux("send-keys", "Enter")

    def close(self) -> None:
        """End the terminal, as a closed window does."""
        self._tmux("kill-server")
