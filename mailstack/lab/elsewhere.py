"""Files of a lab outside the home of its engine: in another runtime directory, or written by an earlier version.

Earlier versions kept labs in directories without a marker. Such a directory is recognised by its `lab.json`, and by
an engine that has the lab. Only files that such a version wrote are removed from it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from mailstack import state
from mailstack.engine.inventory import Inventory
from mailstack.state import Home, LabDirectory
from mailstack.storage import directories
from mailstack.target.target import Target

_WRITTEN = ("credentials", "world.yaml", "subnets.yaml", "guests", "changes", "files", "lab.json")


def find(target: Target, inventory: Inventory, directory: LabDirectory) -> list[Path]:
    """Return the directories outside `here` with files of this user's lab; none unless the engine has a part of it.

    Containers of the lab mount them. For a lab without containers, or on another host (whose containers mount that
    host's directories), the places of earlier versions are searched.
    """
    if not inventory.of(state.owner()):
        return []
    mounted = [Path(path).parent for path in inventory.mounted(state.owner())]
    found = {path.parent for path in mounted if path.name == "files"}
    if not directory.is_made() and (target.host or not found):
        found.update(place / directory.name for place in _legacy_directories(target))
    return sorted(
        path
        for path in found - {directory.path}
        if _is_marked(path, directory.name) or _is_unmarked(target, path, directory.name)
    )


def remove(path: Path, directory: LabDirectory) -> None:
    """Remove one of these directories: only files that mailstack wrote, and none of a lab on another engine.

    The engine may be on another machine, where the same path is another directory. Cloned machines share engine IDs.
    """
    if marker := directories.read(path):
        if (marker.endpoint, marker.engine) == (directory.home.endpoint, directory.home.engine):
            LabDirectory(Home(path.parent.parent, marker.endpoint, marker.engine), marker.lab).remove()
        return
    for name in _WRITTEN:  # `lab.json` goes last: it identifies the directory
        entry = path / name
        with contextlib.suppress(OSError):
            if entry.is_symlink() or not entry.is_dir():
                entry.unlink()
            else:
                shutil.rmtree(entry)
    with contextlib.suppress(OSError):
        path.rmdir()
    for suffix in (".lock", ".users"):
        with contextlib.suppress(OSError):
            if (beside := path.with_name(path.name + suffix)).lstat().st_size == 0:
                beside.unlink()


def _is_marked(path: Path, lab: str) -> bool:
    marker = directories.read(path)
    if marker is None or (marker.kind, marker.owner, marker.lab) != (directories.LAB, state.owner(), lab):
        return False
    return path == Home(path.parent.parent, marker.endpoint, marker.engine).path / lab


def _is_unmarked(target: Target, path: Path, lab: str) -> bool:
    """Return whether an earlier version, without markers, kept this user's lab in `path`, on this engine."""
    if not directories.is_own_directory(path.parent) or not directories.is_own_directory(path):
        return False
    if (record := state.read(path / "lab.json")) is None:
        return False
    on_this_engine = not record.engine or target.matches_endpoint(record.engine)
    return on_this_engine and (record.lab, record.owner) == (lab, state.owner())


def _legacy_directories(target: Target) -> list[Path]:
    """Return the directories in which earlier versions, without markers, kept labs."""
    uid = os.getuid()
    places = [Path(f"/run/user/{uid}/mailstack"), Path(f"/dev/shm/mailstack-{uid}")]
    if chosen := os.environ.get(directories.VARIABLE):
        places.append(Path(chosen).absolute())
    if own := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(Path(own) / "mailstack")
    return [target.legacy_directory(place) for place in places]
