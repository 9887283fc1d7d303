"""The logs of an engine's containers."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping
from datetime import datetime
from typing import IO, Any

from mailstack.engine import following
from mailstack.engine.client import Client, Pieces, mapped
from mailstack.errors import HostError
from mailstack.model import Deadline


class Logs(Client):
    """Read and follow the logs of containers."""

    @mapped
    def logs(
        self, container: str, *, tail: int | None = None, since: float | None = None, timestamps: bool = False
    ) -> str:
        """Return the output of the container's first process; `since` is in seconds of the epoch."""
        options: dict[str, Any] = {"stdout": True, "stderr": True, "timestamps": timestamps}
        if tail is not None:
            options["tail"] = tail
        if since is not None:
            options["since"] = since
        return bytes(self._api.logs(container, **options)).decode(errors="replace")

    @mapped
    def prints(self, container: str, text: str, seconds: float) -> bool:
        """Return whether the container prints a text within `seconds` or has since its last start; False at its end."""
        # Read the log from the end of the previous run. The start time would be too late: the engine takes it after the
        # start, when the container may have printed the text already.
        ended = self._quick.inspect_container(container)["State"]["FinishedAt"]
        since = max(0.0, datetime.fromisoformat(ended).timestamp())  # year 1 if it has never ended
        with contextlib.closing(self._quick.logs(container, stream=True, follow=True, since=since)) as log:
            watch = threading.Timer(seconds, log.end)
            watch.daemon = True
            watch.start()
            try:
                return any(text.encode() in piece for piece in log)
            finally:
                watch.cancel()

    def follow(
        self, containers: Mapping[str, str], *, since: float | None = None, deadline: Deadline
    ) -> Generator[tuple[str, str] | None, None, None]:
        """Yield the output of containers (service → id) line by line, as they print it, each line with its service.

        Lines begin with their timestamp, as in `logs(timestamps=True)`. Output since `since` (seconds of the epoch;
        None: from the beginning) comes first. Output after a restart of the container is included. When the deadline
        passes, None is the last item; an end without None means that all containers have been removed. Closing the
        generator closes its connections. Raises EngineError.
        """
        with contextlib.ExitStack() as followed:
            logs = {}
            for service, container in containers.items():
                logs[service] = followed.enter_context(contextlib.closing(following.Log(self, container, since)))
            yield from following.merged(logs, deadline.remaining)

    @mapped
    def open_log(self, container: str) -> Any:
        """Return a container's last line, then its output until it stops, with timestamps. Iterate, then close it."""
        return Pieces(self.target, self._api.logs(container, stream=True, follow=True, timestamps=True, tail=1))

    @mapped
    def read_log(self, container: str, since: float | None) -> Any:
        """Return a container's log, with timestamps, without following; iterate over it."""
        return Pieces(self.target, self._api.logs(container, stream=True, follow=False, timestamps=True, since=since))

    @mapped
    def last_line(self, container: str) -> bytes:
        """Return the last line of a container's log, with its timestamp; empty when there is none."""
        return bytes(self._api.logs(container, timestamps=True, tail=1))

    @mapped
    def open_events(self, container: str) -> Any:
        """Return the events of a container's start and removal from now on; iterate over it, then close it."""
        return Pieces(self.target, self._api.events(filters={"container": [container], "event": ["start", "destroy"]}))

    @mapped
    def is_running(self, container: str) -> bool:
        """Return whether a container is running."""
        return bool(self._api.inspect_container(container)["State"]["Running"])

    def copy_logs(self, container: str, into: IO[bytes], since: float | None = None) -> None:
        """Write the output of the container's first process to a file, with timestamps, piece by piece.

        Its size does not matter. Raises EngineError; HostError when the file cannot be written.
        """
        for chunk in self.read_log(container, since):
            with _written(into):
                into.write(chunk)
        with _written(into):
            into.flush()

    @mapped
    def log_options(self, container: str) -> tuple[str, dict[str, str]]:
        """Return a container's log driver and its options."""
        found = self._quick.inspect_container(container)["HostConfig"]["LogConfig"]
        return str(found["Type"]), dict(found["Config"] or {})


@contextlib.contextmanager
def _written(into: IO[bytes]) -> Iterator[None]:
    """Raise HostError when our own file cannot be written, so that the engine is not blamed."""
    try:
        yield
    except OSError as error:
        name = into.name if isinstance(into.name, str) else f"a file in {tempfile.gettempdir()}"
        raise HostError(
            f"{name}: the logs cannot be written there: {error.strerror}",
            remedy="free some space there, or name another directory by TMPDIR",
        ) from None
