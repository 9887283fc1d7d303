"""A lab's files that are not in the home of its engine: those of another runtime directory, or of an earlier version.

An earlier version kept labs in directories without a marker. One is known by its `lab.json`, and by an engine that has
the lab; only what that version wrote is removed from it.
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

_WRITTEN = ("credentials", "world.yaml", "subnets.yaml", "guests", "files", "lab.json")


def find(target: Target, inventory: Inventory, here: LabDirectory) -> list[Path]:
    """Return the directories outside `here` that have files of this user's lab, where the engine has anything of it.

    Its containers mount them; or the version before markers kept them there, of a lab without containers, or of one on
    another host, whose containers mount the host's.
    """
    if state.owner() not in inventory.owners():
        return []
    mounted = [Path(path).parent for path in inventory.mounted(state.owner())]
    found = {path.parent for path in mounted if path.name == "files"}
    if not here.is_made() and (target.host or not found):
        found.update(place / here.name for place in _earlier_places(target))
    return sorted(
        path for path in found - {here.path} if _is_marked(path, here.name) or _is_unmarked(target, path, here.name)
    )


def remove(path: Path, here: LabDirectory) -> None:
    """Remove one of these directories: nothing in it that mailstack has not written, and nothing of another engine.

    The engine may be another machine's, where the same path is another directory: cloned machines share IDs.
    """
    if marker := directories.read(path):
        if (marker.endpoint, marker.engine) == (here.home.endpoint, here.home.engine):
            LabDirectory(Home(path.parent.parent, marker.endpoint, marker.engine), marker.lab).remove()
        return
    for name in _WRITTEN:  # what makes it known goes last
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
    """Whether a version before markers kept this user's lab there, on this engine."""
    if not directories.is_own_directory(path.parent) or not directories.is_own_directory(path):
        return False
    if (found := state.read(path / "lab.json")) is None:
        return False
    here = not found.engine or target.ends_in(found.engine)
    return here and (found.lab, found.owner) == (lab, state.owner())


def _earlier_places(target: Target) -> list[Path]:
    """Where versions before markers kept labs."""
    uid = os.getuid()
    places = [Path(f"/run/user/{uid}/mailstack"), Path(f"/dev/shm/mailstack-{uid}")]
    if chosen := os.environ.get(directories.VARIABLE):
        places.append(Path(chosen).absolute())
    if own := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(Path(own) / "mailstack")
    return [target.below(place) for place in places]
