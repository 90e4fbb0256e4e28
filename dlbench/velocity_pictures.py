"""Figures of velocities: arrows over the image, a map a component, truth and error beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.pictures import FAINT, INK, displayed, save

DIVERGING = "RdBu_r"
"""White at rest, red and blue to either side: told apart by the colour-blind."""
UNKNOWN = "#8a8a8a"
ARROW = "#F0E442"
"""Okabe and Ito's yellow: on grey of any level."""
ARROWS = 16
"""Along the longer side."""


def velocity_figure(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray] | None,
    predictions: Sequence[np.ndarray],
    path: Path,
    *,
    names: Sequence[str],
    pixel_km: float,
) -> None:
    """Write a PNG: image with arrows | vx | vy, of one to four samples.

    Images are ``(height, width, frames)``, the first of which is shown with its first row at the
    bottom; truths and predictions ``(height, width, outputs)`` in km/s, of which vx and vy of the
    first depth are shown. A sample has a row for its prediction, with truths also one for the truth
    and one for prediction - truth. All maps have one scale; what is not finite is grey.
    """
    from matplotlib.figure import Figure

    if not 1 <= len(images) <= 4:
        raise ValueError(f"there are {len(images)} images; needed are 1 to 4")
    given = {"truths": truths, "predictions": predictions, "names": names}
    for what, values in given.items():
        if values is not None and len(values) != len(images):
            raise ValueError(f"{len(values)} {what} for {len(images)} images; they must agree")
    for what, values in (("truth", truths), ("prediction", predictions)):
        for image, value in zip(images, values or (), strict=False):
            if value.shape[:-1] != image.shape[:2] or value.shape[-1] < 2:
                raise ValueError(
                    f"a {what} has shape {value.shape}, its image {image.shape}; needed is "
                    "(height, width, outputs) of its size, two outputs or more"
                )

    maps = [np.asarray(v[..., :2], np.float64) for v in (*(truths or ()), *predictions)]
    limit = _round(max(_largest(v) for v in maps))
    rows = [r for i in range(len(images)) for r in _rows(i, truths, predictions)]
    side, gap, head, foot, label = 2.7, 0.1, 0.35, 1.0, 0.95
    panel = side * min(max(image.shape[0] / image.shape[1] for image in images), 3.0)
    width, height = label + 3 * (side + gap), head + len(rows) * (panel + gap) + foot
    figure = Figure(figsize=(width, height), facecolor="white")

    def place(row: int, column: int) -> Any:
        left = label + column * (side + gap)
        bottom = height - head - row * (panel + gap) - panel
        axes = figure.add_axes((left / width, bottom / height, side / width, panel / height))
        axes.tick_params(labelsize=8, colors=INK, length=2, labelleft=False, labelbottom=False)
        axes.spines[:].set(color=FAINT, linewidth=0.5)
        if row == 0:
            title = ("intensity", "$v_x$", "$v_y$")[column]
            # To the left: the arrows' key is on the right.
            axes.set_title(title, fontsize=11, color=INK, pad=5, loc="left")
        return axes

    drawn: Any = None
    for row, (index, kind, velocity) in enumerate(rows):
        image = images[index]
        extent = (0.0, image.shape[1] * pixel_km / 1e3, 0.0, image.shape[0] * pixel_km / 1e3)
        shown: dict[str, Any] = {"origin": "lower", "extent": extent}
        panels = [place(row, column) for column in range(3)]
        for axes, component in zip(panels[1:], (0, 1), strict=True):
            axes.set_facecolor(UNKNOWN)
            drawn = axes.imshow(
                np.ma.masked_invalid(velocity[..., component]),
                cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest", **shown,
            )  # fmt: skip
        if kind == "error":
            assert truths is not None
            panels[0].axis("off")
            panels[0].text(
                0.0, 0.5, _agreement(truths[index], predictions[index]), va="center", fontsize=9,
                color=INK, linespacing=1.6, transform=panels[0].transAxes,
            )  # fmt: skip
        else:
            panels[0].imshow(displayed(image[..., :1]), interpolation="antialiased", **shown)
            _arrows(panels[0], velocity, pixel_km, limit, key=row == 0)
            panels[0].tick_params(labelleft=True)
            panels[0].set_ylabel("y (Mm)", fontsize=9, color=INK)
        # Of the last row that has one: below an image is the next row, below an error nothing.
        for axes in panels if row == len(rows) - 1 else panels[:1]:
            if row == len(rows) - 1 or (kind == "prediction" and index == len(images) - 1):
                axes.tick_params(labelbottom=True)
                axes.set_xlabel("x (Mm)", fontsize=9, color=INK)
        panels[0].text(
            -0.25, 0.5, f"{names[index]}\n{kind}", transform=panels[0].transAxes, rotation=90,
            ha="center", va="center", fontsize=10, color=INK,
        )  # fmt: skip
    left = (label + side + gap) / width
    bar = figure.add_axes((left, 0.4 / height, (2 * side + gap) / width, 0.1 / height))
    figure.colorbar(drawn, cax=bar, orientation="horizontal").outline.set_visible(False)
    bar.set_xlabel("km/s", fontsize=9, color=INK)
    bar.tick_params(labelsize=8, colors=INK, length=2)
    save(figure, path)


def _rows(
    index: int, truths: Sequence[np.ndarray] | None, predictions: Sequence[np.ndarray]
) -> list[tuple[int, str, np.ndarray]]:
    prediction = predictions[index][..., :2]
    if truths is None:
        return [(index, "prediction", prediction)]
    truth = truths[index][..., :2]
    return [
        (index, "truth", truth),
        (index, "prediction", prediction),
        (index, "error", prediction - truth),
    ]


def _largest(velocity: np.ndarray) -> float:
    """The 99th percentile of the components' sizes: a few pixels do not fade the rest."""
    sizes = np.abs(velocity[np.isfinite(velocity)])
    return float(np.percentile(sizes, 99)) if sizes.size else 0.0


def _round(value: float) -> float:
    """Up to one of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten; 1 for nothing at all."""
    if not value > 0.0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next((s for s in (1, 1.5, 2, 3, 4, 5, 6, 8) if s * power >= value), 10) * power)


def _arrows(axes: Any, velocity: np.ndarray, pixel_km: float, limit: float, *, key: bool) -> None:
    height, width = velocity.shape[:2]
    step = max(1, -(-max(height, width) // ARROWS))
    rows, columns = np.arange(step // 2, height, step), np.arange(step // 2, width, step)
    chosen = velocity[np.ix_(rows, columns)]
    megametres = pixel_km / 1e3
    arrows = axes.quiver(
        (columns + 0.5) * megametres, (rows + 0.5) * megametres, chosen[..., 0], chosen[..., 1],
        color=ARROW, edgecolor="black", linewidth=0.3, angles="xy", scale_units="xy",
        scale=limit / (2.0 * step * megametres), width=0.008, pivot="mid",
    )  # fmt: skip
    if key:
        axes.quiverkey(
            arrows, 0.86, 1.05, limit, f"{limit:g} km/s", labelpos="W", labelsep=0.06,
            labelcolor=INK, fontproperties={"size": 8},
        )  # fmt: skip


def _agreement(truth: np.ndarray, prediction: np.ndarray) -> str:
    lines = ["prediction − truth"]
    for component, name in ((0, "$v_x$"), (1, "$v_y$")):
        x, y = (v[..., component].astype(np.float64) for v in (truth, prediction))
        known = np.isfinite(x) & np.isfinite(y)
        if not known.any():
            lines.append(f"{name}: nothing to compare")
            continue
        x, y = x[known], y[known]
        varies = x.std() > 0.0 and y.std() > 0.0
        correlation = f"{np.corrcoef(x, y)[0, 1]:.3f}" if varies else "–"
        rmse = np.sqrt(np.mean((y - x) ** 2))
        lines.append(f"{name}: RMSE {rmse:.3f} km/s, r {correlation}")
    return "\n".join(lines)
