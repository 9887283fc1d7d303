"""The requirements of a lab on its host in figures, and the messages for those that are not met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mailstack.config import pki
from mailstack.engine.engine import Engine
from mailstack.errors import EngineError, MailstackError
from mailstack.target.target import Target

OLDEST_ENGINE = (20, 10)
# Free space for a build: the base image, its packages, and the layers.
FREE_BYTES = 1024**3
# With less free space the engine can create neither a network nor a volume.
FULL_BYTES = 1024**2
# How far the clock of another host may differ; its time has a resolution of one second.
SKEW_SECONDS = 3.0


def oldest() -> str:
    """Return the version of the oldest supported engine, in the engine's format."""
    return ".".join(map(str, OLDEST_ENGINE))


def new_enough(version: str) -> bool:
    """Return whether an engine of this version is supported."""
    numbers = version.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int(part) for part in numbers if part.isdecimal()) >= OLDEST_ENGINE


def refuse_old(engine: Engine) -> None:
    """Raise EngineError for an engine that is too old."""
    version = str(engine.version().get("Version", ""))
    if not new_enough(version):
        raise EngineError(
            f"the Docker engine {engine.target.where} is {version or 'of unknown version'}: "
            f"{oldest()} or newer is needed",
            remedy=f"install Docker Engine {oldest()} or newer there, or choose another host",
        )


def disk(target: Target, info: dict[str, Any]) -> tuple[str, int]:
    """Return the engine's directory for images and volumes, by its description, and the free bytes there.

    Raises HostError.
    """
    root = Path(str(info.get("DockerRootDir", "/var/lib/docker")))
    return str(root), target.free_bytes(root)


def disk_is_full(engine: Engine) -> bool:
    """Return whether a full disk is the reason that nothing can be created."""
    try:
        return disk(engine.target, engine.info())[1] < FULL_BYTES
    except MailstackError:
        return False


def short_of_disk(engine: Engine) -> str:
    """Return an addition to an error message when free space is short, or "" when there is enough."""
    try:
        root, free = disk(engine.target, engine.info())
    except MailstackError:
        return ""  # the failure has another cause
    if free >= FREE_BYTES:
        return ""
    place = root + (f" on {engine.target.host}" if engine.target.host else "")
    return f"; the disk is full: {place}" if free < FULL_BYTES else f"; only {free // 1024**2} MiB are free at {place}"


def clock(target: Target) -> str:
    """Return a warning when the host's clock differs from this machine's, or "" when it does not.

    Times in a journey are the host's. The host's servers check certificates, which are created here.
    """
    ahead = target.clock_ahead
    if abs(ahead) < SKEW_SECONDS:
        return ""
    text = f"the clock of {target.host} is {difference(ahead)}: times in traces and mails are the host's"
    if not -pki.EARLY_SECONDS < ahead < pki.VALID_DAYS * 86400 - pki.EARLY_SECONDS:
        text += ", and to it the lab's certificates are not valid"
    return f"{text}; set both by NTP"


def difference(ahead: float) -> str:
    """Return the difference of a clock as text."""
    return f"{abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
