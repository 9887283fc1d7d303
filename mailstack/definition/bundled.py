"""Find the bundled compose files and image folders: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def _root() -> Path:
    inside = _PACKAGE / "_data"
    return inside if inside.is_dir() else _PACKAGE.parent


def compose_file(name: str) -> Path:
    """Return the path of a bundled compose file: `lab.yaml`, `relay.yaml` or `blank.yaml`."""
    return _root() / "compose" / name


def stack() -> Path:
    """Return the folder with the Dockerfile and one folder per image."""
    return _root() / "stack"


def images(tag: str) -> dict[str, str]:
    """Return the images of the stack: target of the Dockerfile → image reference."""
    names = sorted(path.parent.name for path in stack().glob("*/entrypoint"))  # a folder for each
    return {name: f"mailstack/{name}:{tag}" for name in names}
