"""The common parts of benchmarks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.bench import __main__ as bench
from tests.bench.measuring import Figures, Ratio, Row, alternate, paired


def test_the_sides_take_turns_and_the_first_round_is_not_counted() -> None:
    turns: list[str] = []

    def side(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    values = alternate({"a": lambda: side("a"), "b": lambda: side("b")}, 2)
    assert turns == ["a", "b"] * 3
    assert values == {"a": (3.0, 5.0), "b": (4.0, 6.0)}


def test_a_ratio_is_taken_pair_by_pair() -> None:
    assert paired((1.0, 10.0, 100.0), (1.0, 5.0, 100.0)) == 1.0


@pytest.mark.parametrize(
    ("at_most", "value", "met"), [(True, 1.4, False), (True, 1.3, True), (False, 1.2, False), (False, 1.5, True)]
)
def test_a_bar_that_is_missed_is_told(at_most: bool, value: float, met: bool) -> None:
    ratio = Ratio("one ÷ other", value, bar=1.3, at_most=at_most)
    assert ratio.met is met
    assert ("missed" in Figures((), (ratio,)).table()) is not met


def test_a_table_fits_80_columns_whatever_its_titles() -> None:
    figures = Figures(
        (
            Row(
                "a title that is much longer than the column that it has been given here", (12345.6, 0.001, 99.9), "KiB"
            ),
        ),
        (Ratio("another title that is much longer than its column, which is not wide", 1.234, bar=1.3),),
        ("a note that goes on and on, " * 6,),
    )
    assert max(map(len, figures.table().splitlines())) <= 80
    assert "12,346" in figures.table()


def test_json_has_every_value_and_the_median() -> None:
    (row,) = Figures((Row("it", (3.0, 1.0, 2.0)),)).json()["rows"]
    assert row == {"title": "it", "unit": "s", "median": 2.0, "values": [3.0, 1.0, 2.0]}


def test_a_benchmark_that_fails_takes_nothing_of_those_before_it_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(runs: int) -> Figures:
        sys.exit("the engine has gone")

    one = SimpleNamespace(TITLE="one", measure=lambda runs: Figures((Row("it", (1.0,)),)))
    monkeypatch.setitem(sys.modules, "tests.bench.one", one)
    monkeypatch.setitem(sys.modules, "tests.bench.other", SimpleNamespace(TITLE="other", measure=fails))
    monkeypatch.setattr(bench, "BENCHMARKS", ("one", "other"))
    monkeypatch.setattr(bench, "_machine", lambda: {"processors": 2})
    written = tmp_path / "artifacts" / "bench.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--json", str(written)])
    with pytest.raises(SystemExit, match="the engine has gone"):
        bench.main()
    document = json.loads(written.read_text())
    assert document["machine"] == {"processors": 2}
    assert document["benchmarks"]["one"]["rows"][0]["values"] == [1.0]
    assert [path.name for path in written.parent.iterdir()] == ["bench.json"]
