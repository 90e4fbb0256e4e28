"""The figure of a network's `Architecture`: plates, links between them, labels, totals.

Drawn by matplotlib without a display (no pyplot, no global state), written whole or not at all.
"""

from __future__ import annotations

import functools
import math
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.pictures import BLUE, FAINT, INK, ORANGE, save

if TYPE_CHECKING:
    from dlbench.architecture import Architecture

# Okabe and Ito's colours (2008), told apart by the colour-blind; what is not here is grey.
COLORS = {
    "input": "#D0D0D0",
    "convolution + BN + ReLU": BLUE,
    "convolution + BN": "#56B4E9",
    "convolution + ReLU": "#CC79A7",
    "convolution": "#F0E442",
    "max pooling": "#009E73",
    "max unpooling": ORANGE,
}
OTHER, RULE = "#999999", "#C4C4C4"

# Inches.
WIDTH, MARGIN, HEADS = 9.0, 0.12, 0.8
TALLEST, THICKEST, SLANT, CIRCLE = 1.5, 0.04, 0.16, 0.2
"""Largest height of a plate; largest width per square root of a channel; depth per height; the
diameter of an addition."""
TOUCHING, APART, ARROW = 0.03, 0.12, 0.3
"""Gaps between plates."""
FLOOR = -(TALLEST * (1 + SLANT) / 2 + 0.1)
"""Below the plates, whose middles lie at 0."""
ROWS = [FLOOR - y for y in (0.15, 0.32, 0.52)]
LEVEL, LEGEND_ROW = 0.17, 0.17
FONT = 8.0
DROPPED = "....."
"""Hatch of a plate that dropout follows."""

Levels = dict[tuple[int, int, bool], float]
"""Heights of the links (source, reader, False) and of the frames around blocks (node before, last
node, True)."""


class _Layout:
    """Where the nodes stand, in inches; ``stretch`` widens plates up to `THICKEST`, then arrows."""

    def __init__(self, found: Architecture, stretch: float) -> None:
        nodes = self.nodes = found.nodes
        self.stretch = stretch
        self.skips = found.skips
        largest = max(math.prod(node.size) for node in nodes)
        self.widths, self.heights, self.slants = [], [], []
        for node in nodes:
            width = THICKEST * min(stretch, 1.0) * math.sqrt(node.channels)
            # The square root of the side: sides themselves would hide the small ones.
            height = TALLEST * (math.prod(node.size) / largest) ** 0.25
            sign = node.kind == "addition"
            self.widths.append(CIRCLE if sign else width)
            self.heights.append(CIRCLE if sign else height)
            self.slants.append(0.0 if sign else SLANT * height)
        self.runs: list[list[int]] = []
        """Plates that touch and are alike: they share a label."""
        for n, node in enumerate(nodes):
            before = nodes[n - 1]
            alike = (before.look, before.kernel, before.size) == (node.look, node.kernel, node.size)
            if n and alike and not self.arrow_before(n):
                self.runs[-1].append(n)
            else:
                self.runs.append([n])
        self.lefts: list[float] = []
        right = HEADS - APART
        labelled = [right] * 3  # where the last label of each row ends
        for size, stage in groupby(self.runs, key=lambda run: nodes[run[0]].size):
            spots, labels = self._stage(list(stage), right, "×".join(map(str, size)))
            shift = max(0.0, *(labelled[row] + APART - left for row, left, _ in labels))
            self.lefts += [x + shift for x in spots]
            right = self.lefts[-1] + self.widths[len(self.lefts) - 1]
            for row, _, end in labels:
                labelled[row] = end + shift
        self.right = max(right + self.slants[-1], *labelled)

    def _stage(
        self, stage: list[list[int]], x: float, size: str
    ) -> tuple[list[float], list[tuple[int, float, float]]]:
        """The left sides of a stage's plates, which follow ``x``; (row, left, right) of labels."""
        spots: list[float] = []
        labels: list[tuple[int, float, float]] = []

        def label(row: int, text: str, left: float, right: float) -> None:
            middle, half = (left + right) / 2, _text_width(text) / 2
            labels.extend([(row, middle - half, middle + half)] if text else [])

        for run in stage:
            x += self._gap(run[0])
            width = sum(self.widths[n] + TOUCHING for n in run) - TOUCHING
            for row, text in enumerate(self.label(run)):
                before = [end for other, _, end in labels if other == row]
                if text and before:
                    x = max(x, before[-1] + APART + (_text_width(text) - width) / 2)
            for row, text in enumerate(self.label(run)):
                label(row, text, x, x + width)
            for n in run:
                spots.append(x)
                x += self.widths[n] + TOUCHING
            x -= TOUCHING
        label(2, size, spots[0], x)
        return spots, labels

    def arrow_before(self, n: int) -> bool:
        """Whether ``n`` stands apart from the node before: where a skip connection passes over."""
        passed = any(source < n <= reader for source, reader in self.skips)
        kinds = {node.kind for node in self.nodes[max(n - 1, 0) : n + 1]}
        return n > 0 and (passed or bool(kinds & {"input", "addition"}))

    def _gap(self, n: int) -> float:
        before, node = self.nodes[max(n - 1, 0)], self.nodes[n]
        if self.arrow_before(n):
            return self.slants[n - 1] + ARROW * max(self.stretch, 1.0)
        if before.size != node.size:
            return self.slants[n - 1] + APART
        return TOUCHING if before.kind.startswith("max") else APART

    def label(self, run: list[int]) -> tuple[str, str]:
        """Channels and kernel: "2 × 64", "3×3"."""
        node = self.nodes[run[0]]
        if node.kind not in ("input", "convolution"):
            return "", ""
        counts = [(c, len(list(g))) for c, g in groupby(self.nodes[n].channels for n in run)]
        channels = ", ".join(f"{count} × {c}" if count > 1 else str(c) for c, count in counts)
        return channels, "×".join(map(str, node.kernel or ()))

    def middle(self, run: list[int] | range) -> float:
        return (self.lefts[run[0]] + self.lefts[run[-1]] + self.widths[run[-1]]) / 2

    def tip(self, n: int) -> tuple[float, float]:
        """The middle of the upper face."""
        return self.lefts[n] + (self.widths[n] + self.slants[n]) / 2, self.heights[n] / 2

    def outlet(self, n: int) -> float:
        """The right end, with the slanting side."""
        return self.lefts[n] + self.widths[n] + self.slants[n]


@functools.cache
def _text_width(text: str) -> float:
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=FONT).get_extents().width / 72 if text else 0.0


def draw(found: Architecture, title: str, path: Path) -> None:
    """Write the figure as a PNG, 1350 pixels wide, with ``title`` above the totals."""
    from matplotlib.figure import Figure

    narrow, wide = 0.05, 20.0
    for _ in range(20):
        stretch = math.sqrt(narrow * wide)
        fits = _Layout(found, stretch).right <= WIDTH - MARGIN
        narrow, wide = (stretch, wide) if fits else (narrow, stretch)
    layout = _Layout(found, narrow)
    levels = _levels(found, layout)
    top = max(TALLEST * (1 + SLANT) / 2, *levels.values(), 0.0) + 0.6
    handles = _legend(found)
    legend_rows = 1 if len(handles) <= 5 else 2
    bottom = ROWS[-1] - 0.32 - LEGEND_ROW * legend_rows
    width = max(WIDTH, layout.right + MARGIN)  # what does not fit makes the page wider
    figure = Figure(figsize=(width, top - bottom), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(bottom, top))
    axes.set_axis_off()
    _draw_plates(axes, layout)
    _draw_links(axes, found, layout, levels)
    _draw_labels(axes, found, layout)
    left: dict[str, Any] = {"color": INK, "ha": "left", "va": "center"}
    axes.text(MARGIN, top - 0.2, title, fontsize=12, weight="bold", **left)
    axes.text(MARGIN, top - 0.42, _totals(found), fontsize=9, **left)
    figure.legend(
        handles=handles, ncols=-(-len(handles) // legend_rows), loc="lower left",
        bbox_to_anchor=(0.0, 0.0), frameon=False, fontsize=FONT, labelcolor=INK, handlelength=1.6,
    )  # fmt: skip
    save(figure, path)


def _levels(found: Architecture, layout: _Layout) -> Levels:
    """Each line above the plates and lines that it passes over."""
    levels: Levels = {}
    lines = [(source, reader, False) for source, reader in found.indices + found.skips]
    lines += [(block.start - 1, block.stop - 1, True) for block in found.blocks]
    for a, b, frame in sorted(lines, key=lambda line: (line[1] - line[0], line[2])):
        below = [(layout.heights[n] + layout.slants[n]) / 2 for n in range(a + 1, b + 1)]
        below += [y for (c, d, _), y in levels.items() if a <= c and d <= b]
        levels[a, b, frame] = max(below) + LEVEL
    return levels


def _draw_plates(axes: Any, layout: _Layout) -> None:
    import numpy as np
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Circle, Polygon

    for n, node in enumerate(layout.nodes):
        x, w, s = layout.lefts[n], layout.widths[n], layout.slants[n]
        if node.kind == "addition":
            axes.add_patch(Circle((x + w / 2, 0), w / 2, fc="white", ec=INK, lw=1.0, zorder=4))
            axes.plot(x + w / 2, 0, "+", color=INK, markersize=8, mew=1.2, zorder=5)
            continue
        color = np.array(to_rgb(COLORS.get(node.look, OTHER)))
        low, high = -(layout.heights[n] + s) / 2, (layout.heights[n] - s) / 2
        front = [(x, low), (x + w, low), (x + w, high), (x, high)]
        upper = [(x, high), (x + w, high), (x + w + s, high + s), (x + s, high + s)]
        side = [(x + w, low), (x + w + s, low + s), (x + w + s, high + s), (x + w, high)]
        for corners, shade in ((front, color), (upper, 0.6 * color + 0.4), (side, 0.8 * color)):
            axes.add_patch(Polygon(corners, fc=shade, ec="white", lw=0.5, zorder=2))
        if node.dropout:
            axes.add_patch(Polygon(front, fill=False, ec="white", hatch=DROPPED, lw=0, zorder=2))


def _draw_links(axes: Any, found: Architecture, layout: _Layout, levels: Levels) -> None:
    from matplotlib.patches import FancyBboxPatch

    def arrow(*points: tuple[float, float], color: str = INK, style: str = "-") -> None:
        axes.plot(*zip(*points, strict=True), color=color, lw=1.0, ls=style, zorder=3)
        head = {"arrowstyle": "-|>", "color": color, "lw": 0, "mutation_scale": 10, "shrinkB": 0}
        axes.annotate("", points[-1], points[-2], arrowprops=head, zorder=3)

    for n in filter(layout.arrow_before, range(len(layout.nodes))):
        start = layout.outlet(n - 1) - layout.slants[n - 1] / 2
        arrow((start, 0), (layout.lefts[n], 0))
    for pool, unpool in found.indices:
        (a, low), (b, end), y = layout.tip(pool), layout.tip(unpool), levels[pool, unpool, False]
        arrow((a, low), (a, y), (b, y), (b, end), color=ORANGE, style="--")
    starts, ends = {b.start - 1 for b in found.blocks}, {b.stop - 1 for b in found.blocks}
    for source, reader in found.skips:
        # Of a block's own skip and a longer one from the same place, its own is inside the frame.
        share = 0.5 if source not in starts else 0.78 if reader in ends else 0.22
        a = layout.outlet(source) * (1 - share) + layout.lefts[source + 1] * share
        (b, end), y = layout.tip(reader), levels[source, reader, False]
        axes.plot(a, 0, ".", color=INK, markersize=5, zorder=3)
        arrow((a, 0), (a, y), (b, y), (b, end))
    for block in found.blocks:
        left = (layout.outlet(block.start - 1) + layout.lefts[block.start]) / 2
        right = layout.outlet(block.stop - 1) + 0.1
        high = levels[block.start - 1, block.stop - 1, True]
        frame: dict[str, Any] = {"fc": "#F3F3F3", "ec": FAINT, "lw": 0.9, "ls": "--", "zorder": 0}
        corner, style = (left, FLOOR), "round,pad=0,rounding_size=0.06"
        axes.add_patch(FancyBboxPatch(corner, right - left, high - FLOOR, boxstyle=style, **frame))
        many: dict[str, Any] = {"color": INK, "ha": "left", "va": "top"}
        axes.text(right + 0.06, high, f"× {block.repeats}", fontsize=13, weight="bold", **many)
        axes.text(right + 0.06, high - 0.24, "residual\nblocks", fontsize=FONT, **many)


def _draw_labels(axes: Any, found: Architecture, layout: _Layout) -> None:
    text: dict[str, Any] = {"fontsize": FONT, "va": "center"}
    for y, what in zip(ROWS, ("channels", "kernel", "pixels"), strict=True):
        axes.text(MARGIN, y, what, color=FAINT, ha="left", **text)
    for run in layout.runs:
        for y, what in zip(ROWS, layout.label(run), strict=False):
            axes.text(layout.middle(run), y, what, color=INK, ha="center", **text)
    for stage in found.stages:
        size = "×".join(map(str, found.nodes[stage[0]].size))
        axes.text(layout.middle(stage), ROWS[2], size, color=INK, ha="center", **text)
        ends = [layout.lefts[stage[0]], layout.lefts[stage[-1]] + layout.widths[stage[-1]]]
        axes.plot(ends, [ROWS[2] + 0.09] * 2, color=RULE, lw=0.8)


def _legend(found: Architecture) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    looks = dict.fromkeys(node.look for node in found.nodes if node.kind != "addition")
    handles: list[Any] = [Patch(fc=COLORS.get(look, OTHER), label=look) for look in looks]
    for rate in sorted({node.dropout for node in found.nodes} - {0.0}):
        label = f"followed by dropout {rate:g}"
        handles.append(Patch(fc=FAINT, ec="white", hatch=DROPPED, lw=0, label=label))
    if found.indices:
        handles.append(Line2D([], [], color=ORANGE, lw=1.0, ls="--", label="pooling indices"))
    if found.skips:
        handles.append(Line2D([], [], color=INK, lw=1.0, label="skip connection"))
    return handles


def _totals(found: Architecture) -> str:
    totals = [
        "input " + "×".join(map(str, (*found.nodes[0].size, found.nodes[0].channels))),
        f"{found.parameters:,} parameters ({found.trainable:,} trainable)",
        f"{found.macs / 1e9:.4g} GMACs",
    ]
    if found.receptive_field:
        totals.append(f"receptive field {found.receptive_field}×{found.receptive_field} pixels")
    return "   ·   ".join(totals)
