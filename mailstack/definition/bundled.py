"""Where the compose files and the images' folders are: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def _root() -> Path:
    inside = _PACKAGE / "_data"
    return inside if inside.is_dir() else _PACKAGE.parent


def compose_file(name: str) -> Path:
    """A definition that comes with mailstack: `lab.yaml` or `relay.yaml`."""
    return _root() / "compose" / name


def stack() -> Path:
    """The folder with the images' Dockerfile, and one folder per image."""
    return _root() / "stack"


def images(tag: str) -> dict[str, str]:
    """The images that are made from it: target of its Dockerfile → reference."""
    names = sorted(path.parent.name for path in stack().glob("*/entrypoint"))  # a folder for each
    return {name: f"mailstack/{name}:{tag}" for name in names}
