"""The chart is well-formed SVG, keeps its points inside, and never fails on odd numbers."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monotreme.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart

SVG = "{http://www.w3.org/2000/svg}"
numbers = st.floats(width=32)


def drawn(svg: str) -> list[list[tuple[float, float]]]:
    """The points of each polyline, in the picture's units."""
    lines = ElementTree.fromstring(svg).findall(f"{SVG}polyline")
    return [
        [
            (float(x), float(y))
            for x, y in re.findall(r"([-\d.]+),([-\d.]+)", line.get("points", ""))
        ]
        for line in lines
    ]


def test_points_keep_their_order_and_direction() -> None:
    (line,) = drawn(line_chart("t", "x", "y", {"a": [(1, 5.0), (2, 4.0), (3, 4.5)]}))
    (x1, y1), (x2, y2), (x3, y3) = line
    assert x1 < x2 < x3
    assert y2 > y3 > y1  # a smaller value stands lower, which in SVG is a larger y


@given(st.lists(st.tuples(numbers, numbers), max_size=20))
def test_any_numbers_give_well_formed_svg_within_its_frame(
    points: list[tuple[float, float]],
) -> None:
    for line in drawn(line_chart("t", "x", "y", {"a": points})):
        for x, y in line:
            assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
            assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1


def test_labels_are_text_whatever_they_hold() -> None:
    hostile = '</text><script>alert("1")</script>&'
    svg = line_chart(hostile, hostile, hostile, {hostile: [(0, 1), (1, 2)]})
    tree = ElementTree.fromstring(svg)
    assert tree.findall(f".//{SVG}script") == []
    assert [t.text for t in tree.findall(f"{SVG}text")].count(hostile) == 4


def test_a_number_that_is_none_breaks_the_line() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 1.0), (4.0, 2.0)]
    assert [len(line) for line in drawn(line_chart("t", "x", "y", {"a": points}))] == [2, 2]


@pytest.mark.parametrize("points", [[], [(0.0, math.nan)]])
def test_without_points_it_says_so(points: list[tuple[float, float]]) -> None:
    assert "no data" in line_chart("t", "x", "y", {"a": points})


def test_text_takes_the_page_colour_scheme() -> None:
    svg = line_chart("t", "x", "y", {"a": [(0, 1), (1, 2)]})
    assert "prefers-color-scheme:dark" in svg
    assert "currentColor" in svg
