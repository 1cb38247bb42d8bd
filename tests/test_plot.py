"""The chart is well-formed SVG, keeps its points inside, and never fails on odd numbers."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monotreme.plot import (
    BOTTOM,
    COLOURS,
    COLUMN,
    HEIGHT,
    LEFT,
    LESS,
    MORE,
    RIGHT,
    TOP,
    WIDTH,
    Cell,
    heat_map,
    histogram,
    line_chart,
)

SVG = "{http://www.w3.org/2000/svg}"
numbers = st.floats(width=32)
HOSTILE = '</text><script>alert("1")</script>&'


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
    svg = line_chart(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: [(0, 1), (1, 2)]})
    tree = ElementTree.fromstring(svg)
    assert tree.findall(f".//{SVG}script") == []
    assert [t.text for t in tree.findall(f"{SVG}text")].count(HOSTILE) == 4


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


def boxes(svg: str) -> list[tuple[str | None, str | None]]:
    """(colour, class) of each cell."""
    found = ElementTree.fromstring(svg).findall(f"{SVG}rect")
    return [(box.get("fill"), box.get("class")) for box in found]


def test_a_cell_that_is_noise_is_grey_however_large() -> None:
    cells = [Cell(9.0, sure=False), Cell(2.0, sure=True), Cell(-4.0, sure=True), None]
    svg = heat_map("t", "n", list("abcd"), [("row", cells)])
    assert boxes(svg) == [(None, "noise"), (MORE, None), (LESS, None)]
    texts = [text.text for text in ElementTree.fromstring(svg).findall(f"{SVG}text")]
    assert texts[-3:] == ["+9.0", "+2.0", "-4.0"]  # its number is told all the same
    weak, strong = re.findall(r'fill-opacity="([.\d]+)"', svg)
    assert float(weak) < float(strong)


def test_the_heat_map_holds_all_its_cells_and_hostile_names() -> None:
    rows = [(HOSTILE, [Cell(0.0, sure=False)] * 9)] * 3
    tree = ElementTree.fromstring(heat_map(HOSTILE, HOSTILE, [HOSTILE] * 9, rows))
    _, _, width, height = map(float, tree.get("viewBox", "").split())
    for box in tree.findall(f"{SVG}rect"):
        assert float(box.get("x", 0)) + float(box.get("width", 0)) <= width
        assert float(box.get("y", 0)) + float(box.get("height", 0)) <= height
    assert tree.findall(f".//{SVG}script") == []


def test_a_long_name_of_a_column_stays_within_its_column() -> None:
    """At 12 units a bold letter is at most about 8 wide."""
    name = "merged-twice-and-some-longer-name" + "x" * 40
    tree = ElementTree.fromstring(heat_map("t", "n", [name, "b"], [("r", [Cell(1, True)] * 2)]))
    texts = [(text.text or "", float(text.get("y", 0))) for text in tree.findall(f"{SVG}text")]
    pieces = [(text, y) for text, y in texts if text and text in name and text not in "tnrb"]
    assert "".join(text for text, _ in sorted(pieces, key=lambda piece: piece[1])) == name
    assert max(len(text) for text, _ in pieces) * 8 <= COLUMN
    first = min(float(box.get("y", 0)) for box in tree.findall(f"{SVG}rect"))
    assert 36 < min(y for _, y in pieces) < max(y for _, y in pieces) < first


def test_lines_differ_by_more_than_their_colour() -> None:
    series = {name: [(0.0, 1.0), (1.0, 2.0)] for name in "abc"}
    lines = ElementTree.fromstring(line_chart("t", "x", "y", series)).findall(f"{SVG}polyline")
    assert len({(line.get("stroke-width"), line.get("stroke-dasharray")) for line in lines}) == 3


def test_the_heat_map_of_nothing_is_a_picture_still() -> None:
    assert boxes(heat_map("t", "n", [], [])) == []


BARS = [(0.7, 0.8, 100), (0.8, 0.9, 50), (0.9, 1.0, 0)]


def histogram_bars(svg: str) -> list[ElementTree.Element]:
    """Its boxes but for those of the legend."""
    boxes = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [box for box in boxes if float(box.get("y", 0)) >= TOP]


def test_what_is_of_a_kind_of_its_own_has_its_colour_and_its_name():
    names = ["under", "over", "apart"]
    svg = histogram("t", "x", "y", BARS, 0.8, names, [0, 10, 0])
    bars = histogram_bars(svg)
    assert [bar.get("fill") for bar in bars] == [MORE, LESS, COLOURS[2], LESS]
    heights = [float(bar.get("height", 0)) for bar in bars]
    assert heights[1] == pytest.approx(5 * heights[2], abs=0.5)
    legend = [box.get("fill") for box in ElementTree.fromstring(svg).iter(f"{SVG}rect") if float(box.get("y", 0)) < TOP]  # fmt: skip
    assert legend == [MORE, LESS, COLOURS[2]]
    assert all(f">{name}</text>" in svg for name in names)


def test_bars_of_a_histogram_stand_on_the_axis_as_high_as_their_counts():
    bars = histogram_bars(svg := histogram(HOSTILE, "x", "y", BARS, 0.8, [HOSTILE, "over"]))
    heights = [float(bar.get("height", 0)) for bar in bars]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)
    assert heights[2] == 0
    assert {float(b.get("y", 0)) + float(b.get("height", 0)) for b in bars} == {HEIGHT - BOTTOM}
    assert [bar.get("fill") for bar in bars] == [MORE, LESS, LESS]
    assert "threshold 0.8" in svg
    assert "<script>" not in svg
