"""Small charts as SVG text, readable on a light and a dark page: lines, bars, a map of cells."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a heat map; one that is not `sure` is grey, whatever its value."""

    value: float
    sure: bool


WIDTH, HEIGHT = 720, 320  # user units; the picture scales with its container
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 48, 48  # margins around the plotting area
ROW, COLUMN, NAMES = 20, 120, 280  # of a heat map: height and width of a cell, room for row names
NAME, LINE = 15, 14  # of a heat map: characters in a line of a column's name, and a line's height
BESIDE = 280  # of a histogram: where its legend begins, in the line of the title
WIDTHS = (1.0, 2.5, 1.5)  # of lines, in turn: no two of the first three differ by colour alone
COLOURS = ("#4c8dd6", "#e07b39", "#3fa06b", "#b65fc2", "#c9a227", "#d6566b")  # mid tones
MORE, LESS = COLOURS[:2]

_STYLE = """\
.chart{font:12px system-ui,sans-serif;color:#333}
.chart text{fill:currentColor}
.chart .grid{stroke:currentColor;stroke-opacity:.18}
.chart .noise{fill:currentColor;fill-opacity:.07}
.chart .faint{fill-opacity:.75}
.chart polyline,.chart circle{fill:none;stroke-linejoin:round}
@media(prefers-color-scheme:dark){.chart{color:#eee}}"""


def line_chart(
    title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[Point]]
) -> str:
    """Draw named series of (x, y) points as lines; the same points give the same bytes.

    A point that is not finite breaks its line. Series share the six colours in turn.
    """
    points = [p for line in series.values() for p in line if _finite(p)]
    x_ticks, y_ticks = _ticks([x for x, _ in points]), _ticks([y for _, y in points])
    parts = [
        _text(LEFT, 18, title, "start", _BOLD),
        *_axes(x_ticks, y_ticks, x_label, y_label),
        *_legend(list(series)),
    ]
    for number, line in enumerate(series.values()):
        parts += _lines(line, x_ticks, y_ticks, _look(number))
    if not points:
        parts.append(_text(WIDTH / 2, HEIGHT / 2, "no data", "middle"))
    return _svg(title, WIDTH, HEIGHT, parts)


def histogram(
    title: str,
    x_label: str,
    y_label: str,
    bars: Sequence[tuple[float, float, int]],
    mark: float,
    names: Sequence[str],
    apart: Sequence[int] = (),
) -> str:
    """Draw (low, high, count) bars; those from `mark` on stand out, and a line stands at it.

    Args:
        names: what the bars before the mark are, those from it on, and the parts that are apart.
        apart: how many of each bar's count are of a kind of their own, at the bar's foot.
    """
    x_ticks = _ticks([mark, *(edge for low, high, _ in bars for edge in (low, high))])
    y_ticks = _ticks([0, *(count for _, _, count in bars)])
    parts = [_text(LEFT, 18, title, "start", _BOLD), *_axes(x_ticks, y_ticks, x_label, y_label)]
    for number, name in enumerate(names):
        x = BESIDE + number * (WIDTH - RIGHT - BESIDE) / len(names)
        parts += [_box(x, 8, 12, 12, COLOURS[number]), _text(x + 17, 18, name, "start")]
    for number, (low, high, count) in enumerate(bars):
        x, width = _x(low, x_ticks), _x(high, x_ticks) - _x(low, x_ticks) - 1
        drawn = [(count, MORE if low < mark - 1e-9 else LESS)]
        drawn += [(apart[number], COLOURS[2])] if any(apart[number : number + 1]) else []
        for height, colour in drawn:
            y = _y(height, y_ticks)
            parts.append(_box(x, y, width, HEIGHT - BOTTOM - y, colour))
    x = _x(mark, x_ticks)
    line = f'x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
    parts.append(f'<line stroke="currentColor" stroke-dasharray="4 3" {line}/>')
    parts.append(_text(x, TOP - 6, f"threshold {mark:g}", "middle"))
    return _svg(title, WIDTH, HEIGHT, parts)


def heat_map(
    title: str,
    note: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Cell | None]]],
    headings: frozenset[str] = frozenset(),
) -> str:
    """Draw named rows of cells: blue for more, orange for less, the stronger the further from 0.

    Args:
        note: a line under the title, such as what grey means.
        rows: name and a cell a column, None for none.
        headings: names of the rows that stand for those after them, drawn in bold.
    """
    names = [wrap(name, NAME) for name in columns]
    top = ROW + TOP + LINE * max(map(len, names), default=1)
    most = (
        max((abs(c.value) for _, cells in rows for c in cells if c and c.sure), default=1.0) or 1.0
    )
    parts = [_text(8, 18, title, "start", _BOLD), _text(8, 36, note, "start")]
    for number, lines in enumerate(names):
        for above, text in enumerate(reversed(lines)):
            place = NAMES + (number + 0.5) * COLUMN, top - 8 - above * LINE
            parts.append(_text(*place, text, "middle", _BOLD))
    for line, (name, cells) in enumerate(rows):
        y = top + line * ROW
        parts.append(_text(NAMES - 8, y + 14, name, "end", _BOLD if name in headings else ""))
        for number, cell in enumerate(cells):
            if cell is not None:
                parts += _cell(NAMES + number * COLUMN, y, cell, most)
    width = max(WIDTH, NAMES + len(columns) * COLUMN + RIGHT)
    return _svg(title, width, top + len(rows) * ROW + RIGHT, parts)


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{colour}"/>'


def _cell(x: float, y: float, cell: Cell, most: float) -> list[str]:
    """A box and its number."""
    box = f'<rect x="{x:.1f}" y="{y:.1f}" width="{COLUMN - 2}" height="{ROW - 2}"'
    number = f"{cell.value:+.1f}"
    if not cell.sure:
        return [
            f'{box} class="noise"/>',
            _text(x + COLUMN / 2, y + 14, number, "middle", ' class="faint"'),
        ]
    strength = 0.2 + 0.45 * abs(cell.value) / most
    fill = MORE if cell.value > 0 else LESS
    return [
        f'{box} fill="{fill}" fill-opacity="{strength:.2f}"/>',
        _text(x + COLUMN / 2, y + 14, number, "middle"),
    ]


def _svg(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'viewBox="0 0 {width} {height}" aria-label="{escape(title)}">'
    )
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _ticks(values: Sequence[float], about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from below the least to above the most."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value: leave room on both sides
        margin = abs(low) / 2 or 0.5
        low, high = low - margin, high + margin
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _axes(
    x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str
) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in y_ticks:
        y = _y(tick, y_ticks)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{tick:.6g}", "end"))
    for tick in x_ticks:
        x = _x(tick, x_ticks)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 18, f"{tick:.6g}", "middle"))
    turned = f' transform="rotate(-90 14 {(TOP + bottom) / 2:.1f})"'
    parts.append(_text((LEFT + right) / 2, HEIGHT - 8, x_label, "middle"))
    parts.append(_text(14, (TOP + bottom) / 2, y_label, "middle", turned))
    return parts


def _legend(names: Sequence[str]) -> list[str]:
    """Names in their colours, in one row under the title."""
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(names))
    parts = []
    for number, name in enumerate(names):
        x = LEFT + number * slot
        parts.append(f'<line x1="{x:.1f}" x2="{x + 12:.1f}" y1="32" y2="32" {_look(number)}/>')
        parts.append(_text(x + 17, 36, name, "start"))
    return parts


def _look(number: int) -> str:
    """Colour and stroke of a line."""
    colour, width = COLOURS[number % len(COLOURS)], WIDTHS[number % len(WIDTHS)]
    dashes = ' stroke-dasharray="6 3"' if number % len(WIDTHS) == 2 else ""
    return f'stroke="{colour}" stroke-width="{width}"{dashes}'


def _lines(
    points: Sequence[Point], x_ticks: Sequence[float], y_ticks: Sequence[float], look: str
) -> list[str]:
    """One polyline for each unbroken run of finite points; a lone point is a dot."""
    runs: list[list[str]] = [[]]
    for x, y in points:
        if _finite((x, y)):
            runs[-1].append(f"{_x(x, x_ticks):.1f},{_y(y, y_ticks):.1f}")
        elif runs[-1]:
            runs.append([])
    drawn = []
    for run in filter(None, runs):
        if len(run) > 1:
            drawn.append(f'<polyline {look} points="{" ".join(run)}"/>')
        else:
            x_text, y_text = run[0].split(",")
            drawn.append(f'<circle cx="{x_text}" cy="{y_text}" r="2.5" {look}/>')
    return drawn


def _x(value: float, ticks: Sequence[float]) -> float:
    return LEFT + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (WIDTH - LEFT - RIGHT)


def _y(value: float, ticks: Sequence[float]) -> float:
    return HEIGHT - BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (HEIGHT - TOP - BOTTOM)


_BOLD = ' font-weight="600"'


def _text(x: float, y: float, text: str, anchor: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'
