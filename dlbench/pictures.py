"""Figures of a run: predictions beside the truth, the confusion matrix, the training curve.

Drawn by matplotlib without a display (no pyplot, no global state), written whole or not at all.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlbench.checkpoint import write_atomically
from dlbench.data.dataset import IGNORE, ClassInfo
from dlbench.display import NEUTRAL, colored, displayed, telling
from dlbench.metrics import ConfusionMatrix, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours (2008), told apart by the colour-blind.
BLUE, ORANGE = "#0072B2", "#D55E00"
INK, FAINT = "#222222", "#888888"


def prediction_grid(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray] | None,
    classes: Sequence[ClassInfo],
    path: Path,
    *,
    uncertainties: Sequence[np.ndarray] | None = None,
    bands: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
    second: str = "truth",
) -> None:
    """Write a PNG with a row image | truth [| prediction [| uncertainty]] per sample, and a legend.

    Images are ``(height, width, bands)`` of any real type, truths and predictions
    ``(height, width)`` class indices (`IGNORE` is drawn in `NEUTRAL`), uncertainties
    ``(height, width)`` on one scale for all rows. ``bands`` chooses what is shown, as for
    `displayed`; ``names`` label the rows, ``second`` the column of truths. Contrast
    is that of the pixels with a class, so that clouds do not take it up; where few have one, that
    of pixels within the ``value_range``.
    """
    from matplotlib.figure import Figure

    columns = ["image", second]
    columns += [] if predictions is None else ["prediction"]
    columns += [] if uncertainties is None else ["uncertainty"]
    given: dict[str, Sequence[Any]] = {"truths": truths}
    given |= {} if predictions is None else {"predictions": predictions}
    given |= {} if uncertainties is None else {"uncertainties": uncertainties}
    given |= {} if names is None else {"names": names}
    if not images:
        raise ValueError("there are no images to draw")
    for what, values in given.items():
        if len(values) != len(images):
            raise ValueError(f"{len(values)} {what} for {len(images)} images; they must agree")

    tallest = max(image.shape[0] / image.shape[1] for image in images)
    side, gap, head, margin = 2.4, 0.06, 0.28, 0.08
    # A name has the height of its row: 11 letters of its size to an inch.
    row_names = [_wrapped(name, int(11 * side * tallest)) for name in names or ()]
    lines = max((name.count("\n") + 1 for name in row_names), default=0)
    side_label = 0.1 + 0.15 * lines if lines else 0.0
    width = side_label + len(columns) * (side + gap) - gap + 2 * margin
    maps = [truths] if predictions is None else [truths, predictions]
    entries = _legend_entries([labels for labeled in maps for labels in labeled], classes)
    legend_columns = max(1, int((width - 2 * margin) / (0.45 + 0.075 * _longest(entries))))
    legend = 0.1 + 0.2 * -(-len(entries) // legend_columns)
    scale_bar = 0.38 if uncertainties is not None else 0.0
    row_height = side * tallest + gap
    height = head + len(images) * row_height + scale_bar + legend + margin
    figure = Figure(figsize=(width, height), facecolor="white")

    def place(row: int, column: int) -> Any:
        left = margin + side_label + column * (side + gap)
        bottom = height - head - row * row_height - side * tallest
        axes = figure.add_axes(
            (left / width, bottom / height, side / width, side * tallest / height)
        )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set(color=FAINT, linewidth=0.5)  # classes may be white
        if row == 0:
            axes.set_title(columns[column], fontsize=11, color=INK, pad=5)
        return axes

    drawn = None
    largest = max((float(np.nanmax(u)) for u in uncertainties or ()), default=0.0) or 1.0
    for row, image in enumerate(images):
        axes = place(row, 0)
        shown = telling(image, truths[row], bands, value_range)
        axes.imshow(displayed(image, bands, shown), interpolation="antialiased")
        if row_names:
            axes.text(
                -0.03, 0.5, row_names[row], transform=axes.transAxes, rotation=90,
                ha="right", va="center", multialignment="center", fontsize=9, color=INK,
            )  # fmt: skip
        for column, labels in enumerate(maps, start=1):
            place(row, column).imshow(colored(labels[row], classes), interpolation="nearest")
        if uncertainties is not None:
            drawn = place(row, len(columns) - 1).imshow(
                uncertainties[row], cmap="cividis", vmin=0.0, vmax=largest, interpolation="nearest"
            )
    if drawn is not None:
        left = margin + side_label + (len(columns) - 1) * (side + gap)
        bottom = (legend + margin + 0.24) / height
        bar = figure.add_axes((left / width, bottom, side / width, 0.1 / height))
        figure.colorbar(drawn, cax=bar, orientation="horizontal").outline.set_visible(False)
        bar.tick_params(labelsize=8, colors=INK, length=2)
    _draw_legend(figure, entries, legend_columns, margin / height)
    save(figure, path)


def confusion_figure(matrix: ConfusionMatrix, names: Sequence[str], path: Path) -> None:
    """Write a PNG heat map of ``matrix``: of each true class's pixels, the percentage per answer.

    Rows name their class and its share of all valid pixels; a class that the truth lacks is blank.
    """
    from matplotlib.figure import Figure

    if len(names) != matrix.classes:
        raise ValueError(f"{len(names)} class names for {matrix.classes} classes")
    totals = matrix.counts.sum(axis=1, keepdims=True)
    percent = np.full(matrix.counts.shape, np.nan)
    np.divide(100.0 * matrix.counts, totals, out=percent, where=totals > 0)
    n = matrix.classes
    side = max(3.0, 0.52 * n)
    figure = Figure(figsize=(side + 2.4, side + 1.5), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    # One hue from light to dark reads alike with and without colour vision.
    axes.imshow(percent, cmap="Blues", vmin=0.0, vmax=100.0)
    for i, j in np.argwhere(np.isfinite(percent)):
        value = percent[i, j]
        text = "0" if value == 0 else "<1" if value < 0.5 else f"{value:.0f}"
        axes.text(
            j, i, text, ha="center", va="center", fontsize=9,
            fontweight="bold" if i == j else "normal", color="white" if value > 65 else INK,
        )  # fmt: skip
    for i in np.flatnonzero(totals == 0).tolist():
        axes.text(
            (n - 1) / 2, i, "not in the truth", ha="center", va="center", fontsize=9, color=FAINT,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.0},
        )  # fmt: skip
    shares = 100.0 * totals[:, 0] / max(matrix.pixels, 1)
    tilted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(n), names, **(tilted if max(map(len, names)) > 6 else {}))
    axes.set_yticks(range(n), [f"{a}  {s:.1f} %" for a, s in zip(names, shares, strict=True)])
    axes.set_xticks(np.arange(n - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(n - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="#d0d0d0", linewidth=0.6)
    axes.tick_params(which="both", length=0, labelsize=9, labelcolor=INK)
    axes.spines[:].set(color="#d0d0d0", linewidth=0.6)
    axes.set_xlabel("prediction", color=INK)
    axes.set_ylabel("truth  (share of valid pixels)", color=INK)
    axes.set_title(
        f"% of each true class's pixels\nG {100 * matrix.global_accuracy:.1f} %,   "
        f"mean IoU {100 * matrix.mean_over_all(matrix.iou):.1f} %",
        fontsize=10, color=INK,
    )  # fmt: skip
    save(figure, path)


def curve_figure(metrics: Path, path: Path, score: Score) -> None:
    """Write a PNG of the losses and of ``score`` per epoch, from a run's ``metrics.csv``.

    Columns ``epoch`` and ``loss``; ``val_loss`` and the score may be empty in some epochs.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    absent = {"epoch", "loss", score.key} - set(rows[0] if rows else ())
    if absent:
        raise ValueError(f"{metrics} lacks the columns {', '.join(sorted(absent))}, or is empty")

    def series(column: str) -> tuple[list[float], list[float]]:
        kept = [row for row in rows if row.get(column)]
        return [float(row["epoch"]) for row in kept], [float(row[column]) for row in kept]

    figure = Figure(figsize=(8.4, 3.2), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    left.plot(*series("loss"), color=BLUE, label="training")
    epochs, losses = series("val_loss")
    if epochs:
        left.plot(epochs, losses, color=ORANGE, marker=".", label="validation")
        left.legend(frameon=False, fontsize=9, labelcolor=INK)
    left.set_title("loss", fontsize=11, color=INK)
    epochs, scores = series(score.key)
    right.plot(epochs, scores, color=ORANGE, marker=".")
    title = score.title
    if scores:
        scored = [{score.key: value} for value in scores]
        best = scored.index(score.best(scored) or {})
        right.plot(epochs[best], scores[best], "o", color=ORANGE, markersize=7)
        title += f"  (best {scores[best]:.3f}, epoch {epochs[best]:.0f})"
    right.set_title(title, fontsize=11, color=INK)
    right.set_ylim(0.0, score.limit)
    for axes in (left, right):
        axes.set_xlabel("epoch", color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(labelsize=9, colors=INK, length=0)
    left.set_ylim(bottom=0.0)
    save(figure, path)


def _legend_entries(
    maps: Sequence[np.ndarray], classes: Sequence[ClassInfo]
) -> list[tuple[str, tuple[int, int, int]]]:
    entries = [(c.name, c.color) for c in classes]
    if any((labels == IGNORE).any() for labels in maps):
        entries.append(("void", NEUTRAL))
    return entries


def _longest(entries: list[tuple[str, tuple[int, int, int]]]) -> int:
    return max(len(name) for name, _ in entries)


def _wrapped(name: str, letters: int) -> str:
    """A name in lines of so many letters, broken after its slashes, dashes and underscores."""
    lines = [""]
    for part in re.split(r"(?<=[-_/])", name):
        if lines[-1] and len(lines[-1] + part) > letters:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _draw_legend(
    figure: Figure, entries: list[tuple[str, tuple[int, int, int]]], columns: int, bottom: float
) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(
            facecolor="#{:02x}{:02x}{:02x}".format(*color),
            edgecolor=FAINT,
            linewidth=0.6,
            label=name,
        )
        for name, color in entries
    ]
    figure.legend(
        handles=patches, ncols=min(columns, len(patches)), loc="lower center",
        bbox_to_anchor=(0.5, bottom), frameon=False, fontsize=9, labelcolor=INK,
        handlelength=1.2, handleheight=1.0, columnspacing=1.4, borderpad=0.0, borderaxespad=0.0,
    )  # fmt: skip


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` as a PNG file, whole or not at all."""
    if path.suffix != ".png":
        raise ValueError(f"{path} does not end in .png")
    # Without the name of the software, the same figure is the same file.
    write_atomically(
        path, lambda file: figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    )
