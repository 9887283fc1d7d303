"""The images of this version of mailstack on an engine: digests, and the versions of their contents."""

from __future__ import annotations

import secrets
import time

from mailstack import state
from mailstack.definition import bundled
from mailstack.engine.engine import Engine
from mailstack.images import build
from mailstack.model import LABEL_EXPIRES, LABEL_LAB, LABEL_OWNER, Json

# Debian package → (the image that has it, its name in documents)
PACKAGES = {"postfix": ("postfix", "postfix"), "dovecot-core": ("dovecot", "dovecot")}
DEBIAN = "/etc/debian_version"
_STATUS = "/var/lib/dpkg/status"  # dpkg(1)
_SECONDS = 60  # after which a left-behind container may be removed


def of_images(engine: Engine) -> Json:
    """Return the images' tag and digests, the digest of their base's layer, and the versions of Debian and servers.

    A value is "" when the engine does not have the images.
    """
    tag = build.content_tag(bundled.stack())
    names = bundled.images(tag)
    versions: Json = {
        "tag": tag,
        "images": {service: engine.image_id(name) for service, name in names.items()},
        "base": engine.image_base(names["postfix"]),
        "debian": "",
        "postfix": "",
        "dovecot": "",
    }
    for package, (service, name) in PACKAGES.items():
        if versions["images"][service]:
            release, status = engine.image_files(names[service], (DEBIAN, _STATUS), _labels())
            versions["debian"] = release.decode().strip()
            versions[name] = installed(status.decode(errors="replace"), package)
    return versions


def installed(status: str, package: str) -> str:
    """Return a package's version from dpkg's status file, or "" when it is not in it."""
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Package") == package:
            return fields.get("Version", "")
    return ""


def _labels() -> dict[str, str]:
    """Return labels by which `down --stale` finds a container that was left behind."""
    return {
        LABEL_LAB: f"versions-{secrets.token_hex(4)}",
        LABEL_OWNER: state.owner(),
        LABEL_EXPIRES: str(int(time.time()) + _SECONDS),
    }
