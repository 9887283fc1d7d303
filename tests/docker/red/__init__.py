"""Labs that are broken, each in ways that its name says: what a breakage is, and how it becomes an overlay."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from mailstack.engine import projects
from mailstack.lab.running import RunningLab


@dataclass(frozen=True)
class Broken:
    """One way in which a lab is broken, and the checks that it turns red: id -> what the evidence says (a regex)."""

    what: str
    red: Mapping[str, str]
    postfix: Mapping[str, str] = field(default_factory=dict)  # settings of x-mailstack
    sender: Mapping[str, str] = field(default_factory=dict)
    dovecot: str = ""
    compose: Mapping[str, Any] = field(default_factory=dict)  # the rest of an overlay; LAB stands for the lab's name
    before: Callable[[str], None] | None = None  # done before `up`, with the lab's name
    after: Callable[[RunningLab, pytest.MonkeyPatch], None] | None = None  # done to the lab that is up


@dataclass(frozen=True)
class Case:
    """A lab: what is broken in it, and what must hold all the same."""

    name: str
    breakages: tuple[Broken, ...]
    green: tuple[str, ...]


def overlay(case: Case, name: str) -> str:
    """The overlay that breaks a lab in all of the case's ways; JSON is YAML, too."""
    settings: dict[str, Any] = {"postfix": {}, "sender": {}, "dovecot": ""}
    document: dict[str, Any] = {}
    for broken in case.breakages:
        for service in ("postfix", "sender"):
            _merge(settings[service], getattr(broken, service))
        settings["dovecot"] += broken.dovecot + "\n"
        _merge(document, broken.compose)
    text = json.dumps({"x-mailstack": {"settings": settings}, **document}, indent=1)
    return text.replace("PROJECT", projects.project_name(name)).replace("LAB", name)


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Add to a document; two breakages that say different things of one setting do not belong on one lab."""
    for key, value in other.items():
        if isinstance(value, Mapping):
            _merge(into.setdefault(key, {}), value)
        else:
            assert into.setdefault(key, value) == value, key
