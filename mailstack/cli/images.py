"""The command `images`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailstack.cli.options import host_option
from mailstack.cli.output import Progress, json_option, print_json, progress_option
from mailstack.model import Json

if TYPE_CHECKING:
    from mailstack.engine.engine import Engine

_file = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def images() -> None:
    """Save the images of the lab to a file, or load them from one.

    This is for class rooms and other places without a network.
    """


@images.command("save")
@host_option
@_file
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@progress_option
@json_option
def save(engine: Engine, file: Path, force: bool, progress: str, as_json: bool) -> None:
    """Save the images of this version to FILE, a compressed archive.

    The engine must have them: `mailstack up` builds them.
    """
    from mailstack.images import archive

    with Progress(progress) as show:
        _answer(archive.save(engine, file, show, replace=force), "saved", as_json)


@images.command("load")
@host_option
@_file
@progress_option
@json_option
def load(engine: Engine, file: Path, progress: str, as_json: bool) -> None:
    """Load the images of FILE into the engine: `up` then needs no network.

    Images of another version of mailstack, or for another processor, are refused.
    """
    from mailstack.images import archive

    with Progress(progress) as show:
        _answer(archive.load(engine, file, show), "loaded", as_json)


def _answer(found: Json, done: str, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    click.echo(f"{done} {found['file']}: {found['bytes'] / 1000**2:.0f} MB, mailstack/…:{found['tag']}")
