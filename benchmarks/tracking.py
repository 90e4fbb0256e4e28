"""Local correlation tracking of image pairs, the peer of a network that predicts velocities.

python -m benchmarks.tracking FOLDER [split=val] [pairs=100] [sigmas=2,4,6,8,10,15]
    [lowpass=0,0.4] [processes=CORES] [json=OUT.json]

FLCT (Fisher & Welsch 2008, ASP Conf. Ser. 383, 373, arXiv 0712.4289; here as pyflct wraps it)
correlates Gaussian-windowed sub-images around each pixel and takes the shift of the peak. It knows
no optical depths: its one velocity is compared with the truth at each. It is given every advantage:
the window's width, FLCT's own correction of its bias towards small shifts and its low-pass filter
are chosen by the truth of the very pairs that are scored. Not used are averages over longer
sequences, which a network of two frames does not see either, nor a rescaling fitted to the truth.
Every pixel counts, those within sigma of an edge too, which FLCT's manual calls unreliable.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from dlbench import data
from dlbench.checkpoint import write_atomically
from dlbench.data.granulation import DEPTHS, component_names
from dlbench.errors import UserError, exit_status
from dlbench.metrics import Moments

OUTPUTS = component_names(2 * len(DEPTHS))
SMALLEST = 6
"""Pixels a side: FLCT's sub-image is two thirds of the shorter side at most, and not less than 4.
Below this, and with a sigma below 1, its C code ends the whole process."""
USAGE = (
    "usage: python -m benchmarks.tracking FOLDER [split=val] [pairs=100] [sigmas=2,4,6,8,10,15] "
    "[lowpass=0,0.4] [processes=CORES] [json=OUT.json] [x_axis=0] [normalized=true]"
)

Pair = tuple[np.ndarray, np.ndarray]
"""Image (height, width, 2 frames), velocity (height, width, 6) in km/s in the order `OUTPUTS`."""


class TrackingError(UserError):
    """Tracking that cannot be done; the message says what to change."""


class Variant(NamedTuple):
    """How FLCT runs, besides the width of its window."""

    bias_correction: bool = False
    low_pass: float = 0.0
    """The filter's width as a part of the largest wave number; 0 is no filter."""


PLAIN = Variant()
Results = dict[tuple[float, Variant], Moments]
"""By sigma and variant."""


def track(
    first: np.ndarray,
    second: np.ndarray,
    sigma: float,
    pixel_km: float,
    cadence_s: float,
    variant: Variant = PLAIN,
) -> np.ndarray:
    """FLCT's velocity (height, width, 2) in km/s: along columns, then along rows, both growing with
    the index.

    ``first`` and ``second`` are (height, width), ``cadence_s`` seconds apart; ``sigma`` is the
    width in pixels of the window exp(-r²/sigma²). Raises `TrackingError`.
    """
    flct = _pyflct().flct
    frames = [np.ascontiguousarray(frame, np.float64) for frame in (first, second)]
    if frames[0].ndim != 2 or frames[0].shape != frames[1].shape:
        shapes = " and ".join(str(frame.shape) for frame in frames)
        raise TrackingError(f"the frames have shapes {shapes}; needed are two of (height, width)")
    height, width = frames[0].shape
    if min(height, width) < SMALLEST:
        raise TrackingError(
            f"the frames are {height} × {width} pixels; FLCT needs {SMALLEST} or more a side"
        )
    if not all(np.isfinite(frame).all() for frame in frames):
        raise TrackingError("the frames hold NaN or infinity, which FLCT would track as it is")
    _check(sigma, variant)
    # pyflct passes the axes on in an order that scrambles images that are not square; told the
    # swapped shape, it hands FLCT the right one for the same memory.
    frames = [frame.reshape(width, height) for frame in frames]
    run = functools.partial(
        flct, *frames, cadence_s, pixel_km, sigma, quiet=True, kr=variant.low_pass or None
    )
    velocity = np.stack(run(biascor=variant.bias_correction)[:2], axis=-1)
    if variant.bias_correction and not np.isfinite(velocity).all():
        # The correction takes the root of the peak's Hessian, which noise can make negative.
        plain = np.stack(run(biascor=False)[:2], axis=-1)
        velocity = np.where(np.isfinite(velocity), velocity, plain)
    return velocity.reshape(height, width, 2)


def scan(
    pairs: Iterable[Pair],
    sigmas: Sequence[float],
    pixel_km: float,
    cadence_s: float,
    variant: Variant = PLAIN,
    apply: Callable[..., Iterable[dict[float, Moments]]] = map,
) -> dict[float, Moments]:
    """For each window width the tracked velocity against the truth, six outputs as in `OUTPUTS`.

    ``apply`` is `map` or that of a pool of processes (FLCT's plans are global: not of threads).
    """
    score = functools.partial(
        _score, sigmas=sigmas, pixel_km=pixel_km, cadence_s=cadence_s, variant=variant
    )
    total = {sigma: Moments(len(OUTPUTS)) for sigma in sigmas}
    for one in apply(score, pairs):
        for sigma, moments in one.items():
            total[sigma] += moments
    return total


def surface_error(moments: Moments) -> float:
    """RMSE in km/s over both components at the first depth, by which the best is chosen."""
    return float(np.sqrt(np.mean(moments.rmse[:2] ** 2)))


def best_setting(results: Results) -> tuple[float, Variant]:
    return min(results, key=lambda setting: surface_error(results[setting]))


def table(results: Results) -> str:
    """RMSE in km/s and r of every setting in Markdown, the best in bold, below the mean's RMSE."""
    deviation = next(iter(results.values())).spread
    best = best_setting(results)
    heads = ["sigma, px", "bias correction", "low pass", "RMSE (tau 1)", *OUTPUTS]
    mean = np.sqrt(np.mean(deviation[:2] ** 2))
    rows = [["predict the mean", "", "", f"{mean:.3f}", *(f"{x:.3f}" for x in deviation)]]
    for (sigma, variant), moments in results.items():
        row = [f"{sigma:g}", "yes" if variant.bias_correction else "no"]
        row += [f"{variant.low_pass:g}" if variant.low_pass else "no"]
        row += [f"{surface_error(moments):.3f}"]
        row += [
            f"{rmse:.3f} ({r:.2f})"
            for rmse, r in zip(moments.rmse, moments.correlation, strict=True)
        ]
        rows.append([f"**{cell}**" for cell in row] if (sigma, variant) == best else row)
    lines = [heads, ["---:"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def record(results: Results, about: dict[str, Any]) -> dict[str, Any]:
    """The same, ready for JSON."""
    deviation = next(iter(results.values())).spread
    entries = {
        (sigma, variant): {
            "sigma": sigma,
            **variant._asdict(),
            "rmse_tau_1": surface_error(moments),
            "outputs": moments.summary(OUTPUTS),
        }
        for (sigma, variant), moments in results.items()
    }
    return {
        **about,
        "unit": "km/s",
        "predict_the_mean": dict(zip(OUTPUTS, map(float, deviation), strict=True)),
        "best": entries[best_setting(results)],
        "results": list(entries.values()),
    }


def _pyflct() -> Any:
    try:
        import pyflct
    except ImportError as error:
        raise TrackingError(
            f"pyflct cannot be imported ({error}): pip install -c install/constraints.txt pyflct"
        ) from error
    return pyflct


def _check(sigma: float, variant: Variant) -> None:
    if not 1.0 <= sigma < math.inf:
        raise TrackingError(f"sigma is {sigma:g}; FLCT needs 1 pixel or more")
    if not 0.0 <= variant.low_pass < 20.0:
        raise TrackingError(f"lowpass is {variant.low_pass:g}; allowed are 0 (none) to below 20")


def _score(
    pair: Pair, sigmas: Sequence[float], pixel_km: float, cadence_s: float, variant: Variant
) -> dict[float, Moments]:
    image, truth = pair
    scores = {}
    for sigma in sigmas:
        velocity = track(image[..., 0], image[..., 1], sigma, pixel_km, cadence_s, variant)
        scores[sigma] = Moments(len(OUTPUTS))
        known = np.isfinite(truth).all(axis=-1)
        scores[sigma].update(truth, np.tile(velocity, len(DEPTHS)), valid=known)
    return scores


def _numbers(options: dict[str, str], name: str, default: str) -> list[float]:
    text = options.get(name, default)
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise TrackingError(f"{name}={text}: numbers with commas between them; {USAGE}") from None


def _count(options: dict[str, str], name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise TrackingError(f"{name}={text}: a whole number from 1 on is needed; {USAGE}")
    return int(text)


def main(arguments: list[str]) -> None:
    folders = [a for a in arguments if "=" not in a]
    options = dict(a.split("=", 1) for a in arguments if "=" in a)
    known = {"split", "pairs", "sigmas", "lowpass", "processes", "json", "x_axis", "normalized"}
    if len(folders) != 1 or not options.keys() <= known:
        raise TrackingError(USAGE)
    version = _pyflct().__version__
    sigmas = _numbers(options, "sigmas", "2,4,6,8,10,15")
    low_passes = _numbers(options, "lowpass", "0,0.4")
    variants = [Variant(*both) for both in itertools.product((False, True), low_passes)]
    for sigma, variant in itertools.product(sigmas, variants):
        _check(sigma, variant)
    processes = _count(options, "processes", len(os.sched_getaffinity(0)))
    wanted = _count(options, "pairs", 100)

    facts = {
        key: yaml.safe_load(options[key]) for key in ("x_axis", "normalized") if key in options
    }
    dataset: Any = data.build("granulation", Path(folders[0]), **facts)
    if dataset.outputs != OUTPUTS:
        raise TrackingError(
            f"{folders[0]} has the outputs {', '.join(dataset.outputs)}; needed are those of "
            f"DeepVel: {', '.join(OUTPUTS)}"
        )
    split = options.get("split", "val")
    dataset.require_split(split)
    held = dataset.count(split)
    number = min(wanted, held)
    pairs = [dataset.read(split, i * held // number) for i in range(number)]
    if not pairs:
        raise TrackingError(f"the split '{split}' of {folders[0]} holds no pair")
    pixel_km = dataset.ground_sampling_distance / 1e3

    # Spawned, since a fork copies the locks that other libraries' threads hold.
    context = multiprocessing.get_context("spawn")
    results: Results = {}
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        apply = pool.map if processes > 1 else map
        for variant in variants:
            found = scan(pairs, sigmas, pixel_km, dataset.cadence_s, variant, apply)
            results.update({(sigma, variant): moments for sigma, moments in found.items()})
    height, width = pairs[0][0].shape[:2]
    print(
        f"FLCT (pyflct {version}) on {number} of {held} pairs of '{split}', {height} × {width} "
        f"pixels of {pixel_km:g} km, {dataset.cadence_s:g} s apart; every pixel counts\n"
        "RMSE in km/s, Pearson's r in brackets; the best by the RMSE over both components at "
        "tau 1 in bold\n"
    )
    print(table(results))
    if "json" in options:
        about = {
            "method": "FLCT",
            "pyflct": version,
            "split": split,
            "pairs": number,
            "shape": [height, width],
            "pixel_km": pixel_km,
            "cadence_s": dataset.cadence_s,
        }
        text = json.dumps(record(results, about), indent=1) + "\n"
        write_atomically(Path(options["json"]), lambda file: file.write(text.encode()))


if __name__ == "__main__":
    sys.exit(exit_status("benchmarks.tracking", lambda: main(sys.argv[1:])))
