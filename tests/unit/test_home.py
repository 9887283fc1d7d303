"""Which home belongs to the engine in use: what is asked of it, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mailstack import home
from mailstack.errors import EngineError
from tests.unit.homes import ENDPOINT


class Asked:
    """An engine that counts the questions put to it, and does not answer the first `silent` ones."""

    def __init__(self, silent: int = 0) -> None:
        self.count, self._silent = 0, silent

    def info(self) -> dict[str, Any]:
        self.count += 1
        if self.count <= self._silent:
            raise EngineError("no Docker engine answers")
        return {"ID": "AN-ENGINE"}


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", ENDPOINT)
    home.engine_id.cache_clear()
    yield
    home.engine_id.cache_clear()


def engine(monkeypatch: pytest.MonkeyPatch, silent: int = 0) -> Asked:
    asked = Asked(silent)
    monkeypatch.setattr(home, "Engine", lambda url: asked)
    return asked


def test_an_engine_that_was_asked_ahead_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = engine(monkeypatch)
    home.ask()
    assert [home.current().engine for _ in range(2)] == ["AN-ENGINE"] * 2
    assert asked.count == 1


def test_an_engine_that_did_not_answer_ahead_says_so_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, silent=1)
    home.ask()
    with pytest.raises(EngineError):
        home.current()
    assert home.current().engine == "AN-ENGINE"  # asked afresh: it may have been starting


def test_an_engine_on_another_machine_is_not_asked_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = engine(monkeypatch)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    home.ask()
    assert asked.count == 0
