"""What a lab needs of its host, in figures; and what to say where that is not there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mailstack import hint, hosting, pki
from mailstack.engine import Engine, where
from mailstack.errors import EngineError, MailstackError

OLDEST_ENGINE = (20, 10)
# What a build needs: the base, its packages, and the layers while they are made.
FREE_BYTES = 1024**3
# With less than that the engine can make neither a network nor a volume.
FULL_BYTES = 1024**2
# By how much the clock of another host may differ; it is told in whole seconds.
SKEW_SECONDS = 3.0


def look() -> str:
    """The command that looks the host over."""
    return hint.line("doctor")


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
            f"the Docker engine {where()} is {version or 'of no version'}: {oldest()} or newer is needed",
            remedy=f"install Docker Engine {oldest()} or newer there, or choose another host",
        )


def disk(info: dict[str, Any]) -> tuple[str, int]:
    """Where an engine keeps images and volumes, by what it says of its host, and how many bytes are free there.

    Raises HostError.
    """
    root = Path(str(info.get("DockerRootDir", "/var/lib/docker")))
    if there := hosting.current():
        return str(root), there.free(str(root))
    above = root
    while not above.exists():
        above = above.parent
    return str(root), shutil.disk_usage(above).free


def disk_is_full(engine: Engine) -> bool:
    """Whether that is why nothing can be made."""
    try:
        return disk(engine.info())[1] < FULL_BYTES
    except MailstackError:
        return False


def short_of_disk(engine: Engine) -> str:
    """What to add to the message of something that has failed where little is free; "" where enough is."""
    try:
        root, free = disk(engine.info())
    except MailstackError:
        return ""  # what has failed is more than that
    if free >= FREE_BYTES:
        return ""
    there = hosting.current()
    place = root + (f" on {there.host}" if there else "")
    return f"; the disk is full: {place}" if free < FULL_BYTES else f"; only {free // 1024**2} MiB are free at {place}"


def clock() -> str:
    """What the host's clock, where it differs from this machine's, makes wrong; "" where it does not.

    Times in a journey are the host's, and it is the host's servers that look at certificates, which are made here.
    """
    there = hosting.current()
    if there is None or abs(there.ahead) < SKEW_SECONDS:
        return ""
    text = f"the clock of {there.host} is {difference(there.ahead)}: times in traces and mails are the host's"
    if not -pki.EARLY_SECONDS < there.ahead < pki.VALID_DAYS * 86400 - pki.EARLY_SECONDS:
        text += ", and to it the lab's certificates are not valid"
    return f"{text}; set both by NTP"


def difference(ahead: float) -> str:
    """By how much a clock differs."""
    return f"{abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
