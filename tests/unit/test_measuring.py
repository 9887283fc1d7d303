"""What benchmarks share."""

from __future__ import annotations

import pytest

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
