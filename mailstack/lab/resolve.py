"""Resolve compose files to a definition, check it, and write its files for plain Compose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mailstack import state
from mailstack.config import files
from mailstack.definition import bundled, locate, schema
from mailstack.engine.compose import Compose
from mailstack.engine.engine import Engine
from mailstack.errors import HostError, LabFileError
from mailstack.lab import homes
from mailstack.lab.running import project
from mailstack.model import Deadline, Json, Lab
from mailstack.roles import LABEL, STANDARD
from mailstack.runner.local import Local, Runner
from mailstack.storage import directories
from mailstack.storage.directories import Marker
from mailstack.target.target import Target

# Time limit for Compose to read the files, in seconds.
_SECONDS = 60.0


def resolve(runner: Runner, project: Compose, paths: Sequence[Path]) -> Json:
    """Return the compose files as one document. Raises LabFileError with the place of the mistake."""
    import json

    for path in paths:
        _readable(path)
    result = runner.run(project.config(), deadline=Deadline.after(_SECONDS))
    if result.code != 0:
        raise locate.explain_compose(result.stderr, paths)
    document: Json = json.loads(result.stdout)
    if schema.BLOCK in document:
        # Compose writes `$` as `$$`, so that it can read its own output again.
        document[schema.BLOCK] = _plain(document[schema.BLOCK])
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.replace("$$", "$") if isinstance(value, str) else value


def read_definition(document: Json, paths: Sequence[Path]) -> Lab:
    """Return the Lab in a resolved document. Raises LabFileError with the place of the mistake."""
    try:
        lab = schema.parse(document)
    except schema.InvalidDefinition as error:
        raise locate.explain_invalid(error, paths) from None
    _check_roles(lab, paths)
    return lab


def _check_roles(lab: Lab, paths: Sequence[Path]) -> None:
    """Raise LabFileError unless exactly one service has each role of `STANDARD`."""
    for role, standard in STANDARD.items():
        names = lab.names(role)
        if len(names) == 1:
            continue
        name = next((name for name in names if name != standard), standard)  # of several, the one from an overlay
        keys: schema.Keys = ("services", name, "labels", LABEL)
        problem = f": exactly one service must have the role {role}, not {' and '.join(names) or 'none'}"
        if name not in [service.name for service in lab.services]:
            keys, problem = keys[:2], " must stay part of the lab, and out of profiles"
        path = ".".join(map(str, keys))
        raise LabFileError(f"{locate.locate(keys, paths[1:] or paths)}: {path}{problem}")


def _readable(path: Path) -> None:
    try:
        # Check before opening: opening a FIFO would block until a writer appears.
        if not path.is_dir() and not path.is_file() and path.exists():
            raise LabFileError(f"{path}: should be a file", remedy="write the output of a pipe to a file first")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise LabFileError(f"{path}: cannot be read: {reason}") from None


def resolved(engine: Engine, name: str, overlays: Sequence[Path]) -> Json:
    """Return the resolved document that `up` would use: of the running lab, or of the lab with these overlays."""
    directory = homes.known_directory(engine, name)
    desired = directory.load()
    if desired is None or overlays:
        desired = _bare_state(name, overlays)
    paths = [Path(path) for path in desired.files]
    runner = Local()
    document = resolve(runner, project(engine.target, runner, desired, directory), paths)
    read_definition(document, paths)
    return document


def init_secrets(target: Target, directory: Path, overlays: Sequence[Path]) -> list[str]:
    """Write a lab's files into a directory of the user, for plain Compose; return their names. Raises HostError."""
    desired = _bare_state("lab", overlays)
    paths = [Path(path) for path in desired.files]
    runner = Local()
    directory_without_engine = state.LabDirectory(homes.no_home(), "lab")
    lab = read_definition(resolve(runner, project(target, runner, desired, directory_without_engine), paths), paths)
    try:
        directories.refuse_colon(directory.absolute())
        directories.make(directory.absolute(), Marker(directories.SECRETS, state.owner()))
    except HostError as error:
        error.remedy = "name a new directory, or an empty one of your own"
        raise
    files.write(directory, files.desired(directory, lab))
    return directories.names(directory)


def _bare_state(name: str, overlays: Sequence[Path]) -> state.State:
    paths = [bundled.compose_file("lab.yaml"), *(path.absolute() for path in overlays)]
    return state.State(name, state.owner(), "never", "local", tuple(str(path) for path in paths), {})
