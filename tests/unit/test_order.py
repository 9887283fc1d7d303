"""The longest files of tests are started first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.order import LONGEST, LongestFirst

TESTS = Path(__file__).parents[1]


def test_every_file_of_the_order_is_there_and_named_once() -> None:
    assert [name for name in LONGEST if not (TESTS / name).is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)


def test_the_longest_come_first_and_all_others_keep_their_order() -> None:
    names = ["unit/test_b.py", "unit/test_a.py", LONGEST[1], "browser/test_c.py", LONGEST[0], LONGEST[0]]
    items: list[Any] = [SimpleNamespace(path=TESTS / name, number=number) for number, name in enumerate(names)]
    LongestFirst(str(TESTS)).pytest_collection_modifyitems(items)
    assert [item.number for item in items] == [4, 5, 2, 0, 1, 3]
