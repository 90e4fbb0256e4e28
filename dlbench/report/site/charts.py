"""Charts as inline SVG that is as wide as its column: places across are percentages, so that text
keeps its size on a phone. Colours come from the style sheet, and shapes tell series apart too.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dlbench.report.site.markup import digits, escape

SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "M-4-4h8v8h-8z",
    "M0-5.5L5 4h-10z",
    "M0-5.5L5.5 0L0 5.5L-5.5 0z",
    "M0 5.5L5-4h-10z",
    "M-5-1.7h3.3v-3.3h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3z",
    "M-5.5-3h11v6h-11z",
    "M-3-5.5h6v11h-6z",
)
SERIES = len(SHAPES)
"""As many as can be told apart in one chart."""
LEFT, RIGHT = 2.0, 98.0
"""Per cent of the width that the smallest and the largest value stand at."""
ROW, AXIS, PLANE = 46, 34, 250
"""Pixels: height of a row and of an axis with its name, height of a plane."""


@dataclass(frozen=True)
class Point:
    """A dot, and what it says when pointed at."""

    x: float
    y: float
    tip: str


@dataclass(frozen=True)
class Row:
    """One line of a strip: every launch's value."""

    label: str
    values: Sequence[tuple[float, str]]
    """Values with what they say when pointed at."""


@dataclass(frozen=True)
class Series:
    """Dots of one colour and shape, and the line through their medians."""

    label: str
    points: Sequence[Point]
    line: Sequence[tuple[float, float]] = field(default=())


class Scale:
    """Values to per cent of the width, or to pixels of the height."""

    def __init__(self, values: Iterable[float], start: float, end: float) -> None:
        found = [*values]
        low, high = min(found), max(found)
        padding = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
        self.low, self.high = low - padding, high + padding
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, wanted: int = 5) -> list[tuple[float, str]]:
        """Round values within the scale with their names, about as many as are wanted."""
        raw = (self.high - self.low) / wanted
        power = 10.0 ** math.floor(math.log10(raw))
        step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step)
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(n * step, f"{n * step:,.{places}f}") for n in range(first, last + 1)]


def strips(key: str, title: str, description: str, unit: str, rows: Sequence[Row]) -> str:
    """Each row's launches as dots on a common scale, their median as a line and a number."""
    scale = Scale([value for row in rows for value, _ in row.values], LEFT, RIGHT)
    floor = ROW * len(rows) + 4
    parts = [_tick_lines(scale, floor)]
    for n, row in enumerate(rows):
        base, line = ROW * n + 16, ROW * n + 32
        middle = statistics.median(value for value, _ in row.values)
        x = scale(middle)
        parts += [
            f'<text x="0" y="{base}">{escape(row.label)}</text>',
            f'<text x="100%" y="{base}" class="value">{digits(middle)}</text>',
            f'<line class="strip" x1="0" x2="100%" y1="{line}" y2="{line}"/>',
            *(_mark(scale(value), line, 0, tip) for value, tip in row.values),
            f'<line class="median" x1="{x}%" x2="{x}%" y1="{line - 9}" y2="{line + 9}"/>',
        ]
    parts.append(_axis_name(floor + 30, unit))
    return _svg(key, title, description, floor + AXIS, parts)


def bars(
    key: str, title: str, description: str, rows: Sequence[tuple[str, Sequence[float | None]]]
) -> str:
    """Each row's shares side by side; they need not add up to 1."""
    parts = []
    for n, (label, shares) in enumerate(rows):
        top, start = ROW * n + 22, 0.0
        parts.append(f'<text x="0" y="{top - 6}">{escape(label)}</text>')
        for kind, share in enumerate(shares):
            width = round(100 * (share or 0.0), 3)
            parts.append(
                f'<rect class="part p{kind}" x="{start:.3f}%" y="{top}" width="{width}%" '
                'height="18"/>'
            )
            if width > 11:
                parts.append(
                    f'<text class="on p{kind}" x="{start + width / 2:.3f}%" y="{top + 13}">'
                    f"{width:.1f} %</text>"
                )
            start += width
    return _svg(key, title, description, ROW * len(rows) + 4, parts)


def plane(
    key: str,
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    across: str,
    upwards: str,
    ticks: Sequence[tuple[float, str]] | None = None,
    reference: float | None = None,
) -> str:
    """Dots in a plane, a line through the medians of each series.

    ``ticks`` are places across with their names, else round numbers; ``reference`` is a height
    that the eye should measure by.
    """
    points = [point for one in series for point in one.points]
    x = Scale([p.x for p in points] + [at for at, _ in ticks or ()], 9, 97)
    heights = [p.y for p in points] + ([] if reference is None else [reference])
    y = Scale(heights, PLANE, 34)
    parts = [f'<text class="axis" x="0" y="12">{escape(upwards)}</text>']
    for value, name in y.ticks():
        at = y(value)
        kind = "reference" if value == reference else "grid"
        parts += [
            f'<line class="{kind}" x1="0" x2="100%" y1="{at}" y2="{at}"/>',
            f'<text class="tick left" x="0" y="{at - 4}">{name}</text>',
        ]
    for value, name in x.ticks() if ticks is None else ticks:
        parts += [
            f'<line class="grid" x1="{x(value)}%" x2="{x(value)}%" y1="{PLANE}" y2="{PLANE + 5}"/>',
            f'<text class="tick" x="{x(value)}%" y="{PLANE + 17}">{escape(name)}</text>',
        ]
    for n, one in enumerate(series):
        # Side by side, where dots of several series would cover each other.
        parts.append(f'<g transform="translate({7 * (n - (len(series) - 1) / 2):g})">')
        for (x1, y1), (x2, y2) in itertools.pairwise(one.line):
            parts.append(
                f'<line class="line s{n}" x1="{x(x1)}%" y1="{y(y1)}" x2="{x(x2)}%" y2="{y(y2)}"/>'
            )
        parts += [*(_mark(x(p.x), y(p.y), n, p.tip) for p in one.points), "</g>"]
    parts.append(_axis_name(PLANE + 34, across))
    return _svg(key, title, description, PLANE + 38, parts)


def left_out(series: int) -> str:
    """What is said beside a chart that cannot tell so many series apart."""
    return f" Drawn are {SERIES} of {series}; the table has all." if series > SERIES else ""


def legend(labels: Sequence[str], kind: str = "series") -> str:
    """What each colour and shape stands for; ``kind`` "parts" is for bars."""
    items = []
    for n, label in enumerate(labels):
        shape = f'<path class="s{n}" d="{SHAPES[n]}"/>' if kind == "series" else _PATCH.format(n)
        sign = f'<svg viewBox="-6 -6 12 12" width="12" height="12" aria-hidden="true">{shape}</svg>'
        items.append(f"<li>{sign}{escape(label)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


_PATCH = '<rect class="part p{}" x="-6" y="-6" width="12" height="12"/>'


def _svg(key: str, title: str, description: str, height: float, parts: Iterable[str]) -> str:
    key = escape(key)
    return (
        f'<svg class="chart" width="100%" height="{height}" role="img" '
        f'aria-labelledby="{key}-title {key}-desc">'
        f'<title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-desc">{escape(description)}</desc>{"".join(parts)}</svg>'
    )


def _mark(x: float, y: float, series: int, tip: str) -> str:
    # A nested drawing, because a path's own coordinates cannot be percentages.
    return (
        f'<svg class="dot" x="{x}%" y="{y}"><path class="s{series}" d="{SHAPES[series]}">'
        f"<title>{escape(tip)}</title></path></svg>"
    )


def _tick_lines(scale: Scale, floor: float) -> str:
    parts = []
    for value, name in scale.ticks():
        at = scale(value)
        side = " first" if at < 8 else " last" if at > 92 else ""
        parts.append(
            f'<line class="grid" x1="{at}%" x2="{at}%" y1="0" y2="{floor}"/>'
            f'<text class="tick{side}" x="{at}%" y="{floor + 14}">{name}</text>'
        )
    return "".join(parts)


def _axis_name(y: float, name: str) -> str:
    return f'<text class="axis last" x="100%" y="{y}">{escape(name)}</text>'
