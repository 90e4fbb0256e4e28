"""Figures of velocities: arrows over the image and a map a component, truth beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.display import displayed
from dlbench.metrics import Moments
from dlbench.pictures import FAINT, INK, save

DIVERGING = "RdBu_r"
"""White at rest, red and blue to either side: told apart by the colour-blind."""
UNKNOWN = "#8a8a8a"
ARROW = "#F0E442"
"""Okabe and Ito's yellow: on grey of any level."""
ARROWS_PER_INCH = 7.0


def velocity_figure(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray] | None,
    predictions: Sequence[np.ndarray],
    path: Path,
    *,
    names: Sequence[str],
    pixel_km: float,
) -> None:
    """Write a PNG with a row intensity and arrows | vx | vy for each of one to four samples.

    Images are ``(height, width, frames)``, the first of which is shown with its first row at the
    bottom; truths and predictions ``(height, width, outputs)`` in km/s, of which vx and vy of the
    first depth are shown. With truths each of the three is a pair truth | prediction, and RMSE and
    correlation are below a predicted map. All maps have one scale; what is not finite is grey.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    if not 1 <= len(images) <= 4:
        raise ValueError(f"there are {len(images)} images; needed are 1 to 4")
    if len(names) != len(images):
        raise ValueError(f"{len(names)} names for {len(images)} images; they must agree")
    for what, values in (("truth", truths), ("prediction", predictions)):
        if values is not None and len(values) != len(images):
            raise ValueError(f"{len(values)} {what}s for {len(images)} images; they must agree")
        for image, value in zip(images, values or (), strict=False):
            if value.shape[:-1] != image.shape[:2] or value.shape[-1] < 2:
                raise ValueError(
                    f"a {what} has shape {value.shape}, its image {image.shape}; needed is "
                    "(height, width, outputs) of its size, two outputs or more"
                )

    kinds = [predictions] if truths is None else [truths, predictions]
    limit = _round(max(_largest(v[..., :2]) for values in kinds for v in values))

    # In inches, from the top left; beside a long thin image the text still needs its room.
    side, head, below = (2.8, 0.3, 0.1) if truths is None else (1.32, 0.52, 0.22)
    panel = side * min(max(0.5, *(image.shape[0] / image.shape[1] for image in images)), 1.6)
    gap, foot = 0.06, 0.85
    group = len(kinds) * (side + gap)
    starts = [0.66 + number * (group + 0.1) for number in range(3)]
    width, height = starts[2] + group + 0.1, head + len(images) * (panel + below) - below + foot
    figure = Figure(figsize=(width, height), facecolor="white")

    def write(x: float, y: float, text: str, size: float, rotation: float = 0.0) -> None:
        where: dict[str, Any] = {"ha": "center", "va": "center", "rotation": rotation}
        figure.text(x / width, 1.0 - y / height, text, fontsize=size, color=INK, **where)

    def place(x: float, y: float, wide: float, high: float) -> Any:
        return figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))

    for start, title in zip(starts, ("intensity", "$v_x$", "$v_y$"), strict=True):
        write(start + (group - gap) / 2, 0.16, title, 11)
        if truths is not None:
            ends = [start / width, (start + group - gap) / width]
            figure.add_artist(Line2D(ends, [1.0 - 0.29 / height] * 2, color=FAINT, linewidth=0.8))
            write(start + side / 2, 0.41, "truth", 9)
            write(start + side + gap + side / 2, 0.41, "prediction", 9)

    scale: dict[str, Any] = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}
    ticks: dict[str, Any] = {"labelsize": 8, "colors": INK, "length": 2, "pad": 2}
    for row, image in enumerate(images):
        top, last = head + row * (panel + below), row == len(images) - 1
        write(0.12, top + panel / 2, names[row], 10, 90.0)
        extent = (0.0, image.shape[1] * pixel_km / 1e3, 0.0, image.shape[0] * pixel_km / 1e3)
        shown: dict[str, Any] = {"origin": "lower", "extent": extent}
        for column, (number, index) in enumerate(np.ndindex(3, len(kinds))):
            velocity = kinds[index][row]
            axes = place(starts[number] + index * (side + gap), top, side, panel)
            axes.set_facecolor(UNKNOWN)
            axes.spines[:].set(color=FAINT, linewidth=0.5)
            axes.tick_params("x", bottom=last, labelbottom=last, **ticks)
            axes.tick_params("y", left=column == 0, labelleft=column == 0, **ticks)
            label = "x (Mm)" if last else ""
            if number == 0:
                axes.imshow(displayed(image[..., :1]), **shown)
                arrows = _arrows(axes, velocity, pixel_km / 1e3, limit, side)
            else:
                known = np.ma.masked_invalid(velocity[..., number - 1])
                colors = axes.imshow(known, interpolation="nearest", **scale, **shown)
                if truths is not None and index == 1:
                    label = _agreement(truths[row][..., number - 1], velocity[..., number - 1])
            axes.set_xlabel(label, fontsize=8, color=INK, labelpad=2)
            axes.set_ylabel("y (Mm)" if column == 0 else "", fontsize=8, color=INK, labelpad=2)
    axes.quiverkey(
        arrows, (starts[0] + group / 2) / width, 0.27 / height, limit, f"{limit:g} km/s",
        coordinates="figure", labelpos="E", labelcolor=INK, fontproperties={"size": 9},
    )  # fmt: skip
    bar = place(starts[1], height - 0.32, width - starts[1] - 0.6, 0.1)
    # Its ends are pointed: a few values are beyond `_largest`.
    figure.colorbar(colors, bar, orientation="horizontal", extend="both")
    bar.spines[:].set_visible(False)
    bar.tick_params(**ticks)
    write(width - 0.36, height - 0.27, "km/s", 9)
    save(figure, path)


def _largest(velocity: np.ndarray) -> float:
    """The 99th percentile of the components' sizes: a few pixels do not fade the rest."""
    sizes = np.abs(velocity[np.isfinite(velocity)])
    return float(np.percentile(sizes, 99)) if sizes.size else 0.0


def _round(value: float) -> float:
    """Up to one of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten; 1 for nothing at all."""
    power = 10.0 ** np.floor(np.log10(value)) if value > 0.0 else 1.0
    return float(next((s for s in (1, 1.5, 2, 3, 4, 5, 6, 8) if s * power >= value), 10) * power)


def _arrows(axes: Any, velocity: np.ndarray, megametres: float, limit: float, side: float) -> Any:
    """Of one length a km/s in all panels, whatever their images' sizes: there is one key."""
    step = max(1, round(max(velocity.shape[:2]) / (ARROWS_PER_INCH * side)))
    rows, columns = (np.arange(step // 2, n, step) for n in velocity.shape[:2])
    chosen = velocity[np.ix_(rows, columns)]
    return axes.quiver(
        (columns + 0.5) * megametres, (rows + 0.5) * megametres, chosen[..., 0], chosen[..., 1],
        color=ARROW, edgecolor="black", linewidth=0.3, width=0.016, pivot="mid", angles="xy",
        units="inches", scale_units="inches", scale=limit * ARROWS_PER_INCH / 2.0,
    )  # fmt: skip


def _agreement(truth: np.ndarray, prediction: np.ndarray) -> str:
    known = np.isfinite(truth) & np.isfinite(prediction)
    if not known.any():
        return "nothing to compare"
    moments = Moments()
    moments.update(truth[..., None], prediction[..., None], valid=known)
    (rmse,), (r,) = moments.rmse, moments.correlation
    return f"RMSE {rmse:.2f}, r " + (f"{r:.2f}" if np.isfinite(r) else "–")
