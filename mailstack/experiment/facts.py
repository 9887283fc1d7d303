"""The conditions of the experiment: versions, engine, host and images."""

from __future__ import annotations

import platform

from mailstack import __version__
from mailstack.engine import compose
from mailstack.experiment.machine import packages
from mailstack.experiment.scene import Scene
from mailstack.images.versions import DEBIAN
from mailstack.model import Json
from mailstack.runner.local import Local

# fact -> where the package is installed
PACKAGES = {"postfix": "sender", "sasl2-bin": "sender", "mailutils": "sender", "dovecot-core": "dovecot"}


def facts(scene: Scene) -> Json:
    """Return the versions of all that takes part, and the images; "" for a package of a server that is not running."""
    engine = scene.engine.version()
    runner = Local()
    found: Json = {
        "mailstack": __version__,
        "python": platform.python_version(),
        "engine": str(engine.get("Version", "")),
        "compose": ".".join(map(str, compose.version_of(runner, compose.find(runner)))),
        "host": " ".join(str(engine.get(key, "")) for key in ("Os", "KernelVersion", "Arch")),
    }
    for package, service in PACKAGES.items():
        known = packages(scene, service) if service in scene.running else {}
        found[package.removesuffix("-core")] = known.get(package, "")
    services = scene.services()
    found["images"] = {state.name: scene.engine.image_id(state.image) for state in services}
    found["tag"] = scene.lab.state.tag
    found["base"] = next((scene.engine.image_base(state.image) for state in services), "")
    running = next(iter(scene.running), None)
    found["debian"] = scene.output(running, "cat", DEBIAN).strip() if running else ""
    return found
