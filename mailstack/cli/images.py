"""images."""

from __future__ import annotations

from pathlib import Path

import click

from mailstack.cli.output import Progress, json_option, print_json
from mailstack.cli.where import host_option
from mailstack.model import Json

_file = click.argument("file", type=click.Path(path_type=Path))
_progress = click.option("--progress", type=click.Choice(["auto", "tty", "plain", "quiet"]), default="auto")


@click.group()
def images() -> None:
    """The lab's images in a file, for class rooms that have no network."""


@images.command("save")
@host_option
@_file
@click.option("--force", is_flag=True, help="Replace FILE, if it is there.")
@_progress
@json_option
def save(file: Path, force: bool, progress: str, as_json: bool) -> None:
    """Write the images of this version to FILE, a compressed archive.

    They have to be on the engine: `mailstack up` makes them.
    """
    from mailstack import archive
    from mailstack.engine import Engine

    with Progress(progress) as show:
        _answer(archive.save(Engine(), file, show, replace=force), "saved", as_json)


@images.command("load")
@host_option
@_file
@_progress
@json_option
def load(file: Path, progress: str, as_json: bool) -> None:
    """Have the engine hold the images of FILE: `up` then needs no network.

    A file with the images of another version of mailstack, or for another kind of
    processor, is refused.
    """
    from mailstack import archive
    from mailstack.engine import Engine

    with Progress(progress) as show:
        _answer(archive.load(Engine(), file, show), "loaded", as_json)


def _answer(found: Json, done: str, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    click.echo(f"{done} {found['file']}: {found['bytes'] / 1000**2:.0f} MB, mailstack/…:{found['tag']}")
