"""What a lab needs of its host, in figures; and what to say where that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mailstack.config import pki
from mailstack.engine.engine import Engine
from mailstack.errors import EngineError, MailstackError
from mailstack.target.target import Target

OLDEST_ENGINE = (20, 10)
# What a build needs: the base, its packages, and the layers while they are made.
FREE_BYTES = 1024**3
# With less than that the engine can make neither a network nor a volume.
FULL_BYTES = 1024**2
# By how much the clock of another host may differ; it is told in whole seconds.
SKEW_SECONDS = 3.0


def oldest() -> str:
    """The oldest engine that will do, as it says its version."""
    return ".".join(map(str, OLDEST_ENGINE))


def new_enough(version: str) -> bool:
    """Whether an engine of this version will do."""
    numbers = version.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int(part) for part in numbers if part.isdecimal()) >= OLDEST_ENGINE


def refuse_old(engine: Engine) -> None:
    """Raises EngineError for an engine that is too old."""
    version = str(engine.version().get("Version", ""))
    if not new_enough(version):
        raise EngineError(
            f"the Docker engine {engine.target.where} is {version or 'of no version'}: {oldest()} or newer is needed",
            remedy=f"install Docker Engine {oldest()} or newer there, or choose another host",
        )


def disk(target: Target, info: dict[str, Any]) -> tuple[str, int]:
    """Where an engine keeps images and volumes, by what it says of its host, and how many bytes are free there.

    Raises HostError.
    """
    root = Path(str(info.get("DockerRootDir", "/var/lib/docker")))
    return str(root), target.free_bytes(root)


def disk_is_full(engine: Engine) -> bool:
    """Whether that is why nothing can be made."""
    try:
        return disk(engine.target, engine.info())[1] < FULL_BYTES
    except MailstackError:
        return False


def short_of_disk(engine: Engine) -> str:
    """What to add to the message of something that has failed where little is free; "" where enough is."""
    try:
        root, free = disk(engine.target, engine.info())
    except MailstackError:
        return ""  # what has failed is more than that
    if free >= FREE_BYTES:
        return ""
    place = root + (f" on {engine.target.host}" if engine.target.host else "")
    return f"; the disk is full: {place}" if free < FULL_BYTES else f"; only {free // 1024**2} MiB are free at {place}"


def clock(target: Target) -> str:
    """What the host's clock, where it differs from this machine's, makes wrong; "" where it does not.

    Times in a journey are the host's, and it is the host's servers that look at certificates, which are made here.
    """
    ahead = target.clock_ahead
    if abs(ahead) < SKEW_SECONDS:
        return ""
    text = f"the clock of {target.host} is {difference(ahead)}: times in traces and mails are the host's"
    if not -pki.EARLY_SECONDS < ahead < pki.VALID_DAYS * 86400 - pki.EARLY_SECONDS:
        text += ", and to it the lab's certificates are not valid"
    return f"{text}; set both by NTP"


def difference(ahead: float) -> str:
    """By how much a clock differs."""
    return f"{abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
