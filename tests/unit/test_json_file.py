"""JSON in damaged or hostile files, and in no regular files: every reader treats it as missing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from mailstack import state
from mailstack.errors import EngineError
from mailstack.storage import directories, json_file
from tests import engines

STATE = asdict(state.State("lab", "me", "never", "t", ("lab.yaml",), {"smtp": 25}))
MARKER = asdict(directories.Marker(directories.LAB, lab="lab"))

NO_OBJECT = {
    "nothing": b"",
    "an array": b"[]",
    "a number": b"5",
    "deep": b"[" * 100_000,
    "cut off": json.dumps(STATE).encode()[:-2],
    "no UTF-8": b'{"lab": "\xff"}',
}


def changed(document: dict[str, object]) -> list[bytes]:
    """Return variants of the document: a value of another type or null for each key, and one key more."""
    others = [json.dumps({**document, key: other}) for key in document for other in ([5], {"a": [None]}, None)]
    return [each.encode() for each in (*others, json.dumps({**document, "more": 1}))]


@pytest.mark.parametrize("content", NO_OBJECT.values(), ids=NO_OBJECT)
def test_what_is_no_object_is_nothing(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lab.json", "config.json", directories.MARKER):
        (tmp_path / name).write_bytes(content)
    assert json_file.read(tmp_path / "lab.json") == {}
    assert state.read(tmp_path / "lab.json") is None
    assert directories.read(tmp_path) is None
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert engines.url() == "unix:///var/run/docker.sock"


@pytest.mark.parametrize("content", changed(STATE))
def test_a_state_with_something_else_in_it_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text(json.dumps(STATE))
    assert state.read(tmp_path / "lab.json") is not None
    (tmp_path / "lab.json").write_bytes(content)
    found = state.read(tmp_path / "lab.json")
    assert found is None or asdict(found).keys() == STATE.keys()
    if found:  # as another type would do, too
        assert isinstance(found.document, dict) and isinstance(found.subnets, dict)


@pytest.mark.parametrize("content", changed(MARKER))
def test_a_marker_with_something_else_in_it_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / directories.MARKER).write_bytes(content)
    assert directories.read(tmp_path) is None


def _link(path: Path) -> None:
    (path.parent / "else").write_text(json.dumps(STATE))
    path.symlink_to("else")


PLACES: dict[str, Callable[[Path], object]] = {
    "nowhere": lambda path: None,
    "a directory": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link": _link,
    "larger than any": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**40),
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_what_is_no_file_of_ones_own_is_nothing(make: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    make(path)
    assert json_file.read(path) == {}
    assert state.read(path) is None


@pytest.mark.parametrize(
    "context", [{}, {"Name": "it"}, {"Name": "it", "Endpoints": 5}, {"Name": "it", "Endpoints": {"docker": []}}]
)
def test_a_context_of_docker_s_without_an_address_is_not_known(
    context: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "it")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    meta = tmp_path / "contexts" / "meta" / "1" / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps(context))
    with pytest.raises(EngineError, match="“it” is not known"):
        engines.url()
