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
    """What containers have printed, and print."""

    @mapped
    def logs(
        self, container: str, *, tail: int | None = None, since: float | None = None, timestamps: bool = False
    ) -> str:
        """What the container's first process has printed; `since` is in seconds of the epoch."""
        options: dict[str, Any] = {"stdout": True, "stderr": True, "timestamps": timestamps}
        if tail is not None:
            options["tail"] = tail
        if since is not None:
            options["since"] = since
        return bytes(self._api.logs(container, **options)).decode(errors="replace")

    @mapped
    def says(self, container: str, text: str, seconds: float) -> bool:
        """Whether the container prints this within so many seconds, or has since its last start; False at its end."""
        # Since it ended before: the time of its start is taken when it has been started, and that may be so late that
        # it has printed what is waited for.
        ended = self._quick.inspect_container(container)["State"]["FinishedAt"]
        since = max(0.0, datetime.fromisoformat(ended).timestamp())  # of the year 1, where it never has
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
        """What containers (service → id) print, line by line as they do, each line with its service.

        Lines begin with their time, as in `logs(timestamps=True)`. What was printed since `since` (seconds of the
        epoch; None: ever) comes first, and what a container prints when it is started again is not missed. When the
        deadline passes, None is the last to come; an end without it means that all containers have been removed.
        Closing the generator closes its connections. Raises EngineError.
        """
        with contextlib.ExitStack() as followed:
            logs = {}
            for service, container in containers.items():
                logs[service] = followed.enter_context(contextlib.closing(following.Log(self, container, since)))
            yield from following.merged(logs, deadline.remaining)

    @mapped
    def open_log(self, container: str) -> Any:
        """A container's last line, and what it prints until it stops, with times: to be iterated over, and closed."""
        return Pieces(self.target, self._api.logs(container, stream=True, follow=True, timestamps=True, tail=1))

    @mapped
    def read_log(self, container: str, since: float | None) -> Any:
        """What a container has printed, with times, as far as its log has it: to be iterated over."""
        return Pieces(self.target, self._api.logs(container, stream=True, follow=False, timestamps=True, since=since))

    @mapped
    def last_of_log(self, container: str) -> bytes:
        """The last line of a container's log, with its time; empty when there is none."""
        return bytes(self._api.logs(container, timestamps=True, tail=1))

    @mapped
    def open_events(self, container: str) -> Any:
        """When a container is started or removed from now on: to be iterated over, and closed."""
        return Pieces(self.target, self._api.events(filters={"container": [container], "event": ["start", "destroy"]}))

    @mapped
    def runs(self, container: str) -> bool:
        """Whether a container runs."""
        return bool(self._api.inspect_container(container)["State"]["Running"])

    def copy_logs(self, container: str, into: IO[bytes], since: float | None = None) -> None:
        """Write what the container's first process has printed to a file, with times, however much it is.

        Raises EngineError; HostError when the file cannot be written.
        """
        for chunk in self.read_log(container, since):
            with _written(into):
                into.write(chunk)
        with _written(into):
            into.flush()

    @mapped
    def log_options(self, container: str) -> tuple[str, dict[str, str]]:
        """The driver of a container's log, and its options."""
        found = self._quick.inspect_container(container)["HostConfig"]["LogConfig"]
        return str(found["Type"]), dict(found["Config"] or {})


@contextlib.contextmanager
def _written(into: IO[bytes]) -> Iterator[None]:
    """Tell what goes wrong with a file of ours as that."""
    try:
        yield
    except OSError as error:
        name = into.name if isinstance(into.name, str) else f"a file in {tempfile.gettempdir()}"
        raise HostError(
            f"{name}: the logs cannot be written there: {error.strerror}",
            remedy="make room there, or name another directory by TMPDIR",
        ) from None
