"""The report's folder: index.html, experiment.json and the evidence. It is written completely or not at all."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mailstack.errors import HostError, InputError
from mailstack.model import Json
from mailstack.storage import directories
from mailstack.storage.directories import Marker

DOCUMENT = "experiment.json"
# The entries of a report, the page last: if it exists, so do the others.
ENTRIES = ("evidence", DOCUMENT, "index.html")
# Names of the evidence files that `contents` returns.
_EVIDENCE = re.compile(
    r"[\w.-]+\.log|(journey|timeline)-[\w-]+\.(json|svg)|topology\.svg|dialogue\.(json|svg|txt)|[\w-]+\.png"
)


@contextlib.contextmanager
def prepared(path: Path) -> Iterator[Path]:
    """Yield a directory for a new report, inside the folder `path`, which is created if needed.

    When `with` ends without an error, the directory's contents become the report and replace an earlier one;
    otherwise nothing changes. Raises InputError for a folder that contains anything else, or that cannot be written
    to.
    """
    try:
        created = not path.exists()
        _require_usable(path)
        if created:
            path.mkdir()
        directory = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=path))
        directories.make(directory, Marker(directories.REPORT))
        directory.chmod(0o755)
    except OSError as error:
        raise InputError(f"{path}: cannot be written to: {error.strerror}") from None
    try:
        yield directory
        _publish(directory, path)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if created:
            with contextlib.suppress(OSError):  # not empty: it contains the report
                path.rmdir()


# Prefix of the directory of an unfinished report. It stays when the process that writes it is killed.
_UNFINISHED = ".writing-"


def _require_usable(path: Path) -> None:
    """Raise InputError for a path that must not become a report."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; name a folder for the report")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no such directory to make it in")
    found = {entry.name for entry in path.iterdir()} - _unfinished(path) if path.exists() else set()
    if found and (DOCUMENT not in found or found - set(ENTRIES) or not _is_evidence(path / "evidence")):
        raise InputError(
            f"{path}: has something else in it than a report of mailstack",
            remedy="name a new folder, or an empty one",
        )


def _unfinished(path: Path) -> set[str]:
    """Return the directories of unfinished reports in a folder, left by killed processes."""
    found = directories.entries(path, directories.REPORT)
    return {name for name in found if name.startswith(_UNFINISHED)}


def _is_evidence(path: Path) -> bool:
    """Return whether a folder contains nothing except evidence of a report."""
    if not path.is_symlink() and not path.exists():
        return True
    if path.is_symlink() or not path.is_dir():
        return False
    return all(_EVIDENCE.fullmatch(each.name) and each.is_file() and not each.is_symlink() for each in path.iterdir())


def write(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files, by their paths below `directory`. Raises HostError."""
    for name, data in files.items():
        file = directory / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(opened.fileno())
        except OSError as error:
            raise HostError(f"{directory.parent}: the report could not be written: {error.strerror}") from None


def _publish(directory: Path, path: Path) -> None:
    """Replace the earlier report with the new one."""
    try:
        for name in ENTRIES:
            if (path / name).is_dir():
                shutil.rmtree(path / name)
            (directory / name).replace(path / name)
        for leftover in _unfinished(path):
            directories.remove(path / leftover)
    except OSError as error:
        raise HostError(f"{path}: the report could not be written: {error.strerror}") from None


def contents(document: Json, logs: Mapping[str, str]) -> dict[str, bytes]:
    """Return the report's files by relative path, from the document and the logs. A pure function."""
    from mailstack.report import page
    from mailstack.report.figures.sequence import sequence
    from mailstack.report.figures.timeline import timeline
    from mailstack.report.figures.topology import topology

    files = {DOCUMENT: _json(document), "index.html": page.render(document).encode()}
    files |= {f"evidence/{service}.log": log.encode() for service, log in logs.items()}
    for model, journey in document["journeys"].items():
        files[f"evidence/journey-{model}.json"] = _json(journey)
        files[f"evidence/timeline-{model}.svg"] = timeline(journey).encode()
    if document["journeys"]:
        files["evidence/topology.svg"] = topology(document["journeys"]).encode()
    if document["dialogue"]:
        files["evidence/dialogue.json"] = _json(document["dialogue"])
        files["evidence/dialogue.txt"] = transcript(document["dialogue"]).encode()
        files["evidence/dialogue.svg"] = sequence(document["dialogue"]).encode()
    for step in document["steps"]:
        for found in step["evidence"]:
            if found["kind"] == "image":
                files[f"evidence/{found['name']}"] = base64.b64decode(found["base64"])
    return files


def transcript(dialogue: Json) -> str:
    """Return a dialogue as plain text, with `C:` and `S:` before the lines as in the RFCs."""
    lines = []
    for exchange in dialogue["exchanges"]:
        who = "C" if exchange["from"] == "client" else "S"
        lines += [f"{who}: {line}".rstrip() for line in exchange["lines"]]
    return "\n".join([f"C: {dialogue['client']}, S: {dialogue['server']}", "", *lines, ""])


def _json(document: object) -> bytes:
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n".encode()
