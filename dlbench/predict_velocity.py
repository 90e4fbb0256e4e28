"""Velocities in a sequence of images, for `dlbench.predict`.

RUN is the folder of a DeepVel training, or a ``.keras`` file; INPUT a FITS or HDF5 file, or FITS
files of one frame each with commas between (see `dlbench.frames`). Each two consecutive frames,
divided by the median of the whole sequence, go through the network, whose output is in km/s.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

import dlbench
from dlbench import command_line, fits_header, frames, trained
from dlbench.command_line import note
from dlbench.config import ConfigError
from dlbench.data.granulation import CADENCE_S, PIXEL_KM, component_names
from dlbench.errors import UserError
from dlbench.tiling import Tiling, predict_tiled

if TYPE_CHECKING:
    import keras

USAGE = (
    "usage: python -m dlbench.predict RUN INPUT [OUTPUT.fits] [checkpoint=best|last] [tile=256] "
    "[overlap=48] [batch=2] [border=0] [key=DATASET] [picture=OUT.png] [overwrite=false]"
)
TOLERANCE = 0.1
"""Relative difference from the pixels and cadence of training that is worth a note."""


@dataclass(frozen=True)
class Request:
    """The command line."""

    run: Path
    source: str
    output: Path
    checkpoint: str | None
    tile: int
    overlap: int
    batch: int
    border: int
    key: str | None
    picture: Path | None

    @property
    def network(self) -> str:
        kind = "" if self.run.suffix == ".keras" else f", checkpoint {self.checkpoint or 'best'}"
        return f"{self.run}{kind}"


def predict(arguments: list[str]) -> None:
    """Read, predict and write; what can be checked without TensorFlow is checked before it."""
    request = _parse(arguments)
    load, x_axis = trained.velocity_network(request.run, request.checkpoint or "best")
    with frames.opened(request.source, request.key, x_axis) as images:
        height, width = images.shape
        tiles = Tiling(height, width, request.tile, request.overlap)
        if 2 * request.border >= min(height, width):
            raise ConfigError(
                f"border={request.border} cuts all of {images.name}, {height} x {width} pixels; "
                f"allowed are 0 to {(min(height, width) - 1) // 2}"
            )
        median, missing = images.median()
        _note_input(images, missing)
        network = load()
        radius = trained.receptive_radius(network)
        if len(tiles) > 1 and radius is not None and request.overlap < radius:
            note(f"overlap={request.overlap}: the network sees {radius} pixels, seams may show")
        outputs = network.output_shape[-1]
        header = _header(request, images, outputs, median)
        work = _Prediction(request, images, network, median)
        started = time.perf_counter()
        try:
            frames.write_velocity(request.output, header, work)
            seconds = time.perf_counter() - started
            if request.picture is not None:
                work.draw(request.picture)
        except OSError as error:
            raise UserError(
                f"cannot write: {error}; make room, or choose another folder"
            ) from error
        pixels = len(images.pairs) * height * width
        print(
            f"{len(images.reads)} frames of {height} x {width} pixels; pairs: {len(images.pairs)}, "
            f"tiles a pair: {len(tiles)}; {seconds:.1f} s, {pixels / seconds:,.0f} pixels/s"
        )
        print(work.table())
        shape = tuple(header[f"NAXIS{axis}"] for axis in (4, 3, 2, 1))
        print(f"wrote {request.output}, {shape}")
        if request.picture is not None:
            print(f"wrote {request.picture}")


class _Prediction:
    """Iterates over the velocities of the pairs, as they go into the file, and sums them up."""

    def __init__(
        self, request: Request, images: frames.Frames, network: keras.Model, median: float
    ) -> None:
        import tensorflow as tf

        from dlbench.prediction import Predictor

        self._request, self._images, self._median = request, images, median
        self._outputs = network.output_shape[-1]
        self._sums = np.zeros((3, self._outputs))
        self._first: tuple[np.ndarray, np.ndarray] | None = None
        self._predictor = Predictor(network, tf.identity, frozen=True)

    def __iter__(self) -> Iterator[np.ndarray]:
        request = self._request
        cut = slice(request.border, -request.border or None)
        count = len(self._images.pairs)
        for number, pair in enumerate(self._images.read_pairs(), start=1):
            if sys.stderr.isatty():
                end = "\n" if number == count else ""
                print(f"\rpair {number} of {count}", end=end, file=sys.stderr, flush=True)
            known = np.isfinite(pair)
            pair[~known] = self._median
            pair /= np.float32(self._median)
            velocity = predict_tiled(
                self._velocity, pair, request.tile, request.overlap, request.batch
            )
            velocity[~known.all(axis=-1)] = np.nan
            velocity = velocity[cut, cut]
            values = velocity[np.isfinite(velocity).all(axis=-1)].astype(np.float64)
            self._sums += (np.full(self._outputs, len(values)), values.sum(0), (values**2).sum(0))
            if self._first is None and request.picture is not None:
                pair[~known] = np.nan
                self._first = pair[cut, cut], velocity
            yield velocity.swapaxes(0, 1) if self._images.x_first else velocity

    def _velocity(self, pairs: np.ndarray) -> np.ndarray:
        velocity, _ = self._predictor(pairs)
        return velocity.numpy()

    def table(self) -> str:
        """Mean and root mean square of each component, in km/s."""
        count, total, squares = self._sums
        lines = [f"{'km/s':<12} {'mean':>8} {'rms':>8}"]
        for name, mean, square in zip(
            component_names(self._outputs),
            total / np.maximum(count, 1.0),
            squares / np.maximum(count, 1.0),
            strict=True,
        ):
            lines.append(f"{name:<12} {mean:8.3f} {square**0.5:8.3f}")
        return "\n".join(lines)

    def draw(self, path: Path) -> None:
        """A picture of the first pair."""
        from dlbench.velocity_pictures import velocity_figure

        assert self._first is not None
        pair, velocity = self._first
        scale = self._images.pixel_km or PIXEL_KM
        names = ["first pair"]
        velocity_figure([pair], None, [velocity], path, names=names, pixel_km=scale)


def _header(request: Request, images: frames.Frames, outputs: int, median: float) -> fits.Header:
    kept = [length - 2 * request.border for length in images.shape]
    if images.x_first:
        kept.reverse()
    shape = (len(images.pairs), kept[0], kept[1], outputs)
    header, moved = fits_header.velocity_header(images.header, shape, request.border)
    if not moved:
        note(
            f"{images.name}: its world coordinates cannot be moved to the velocities' axes; their "
            "cards are kept as INPUT CTYPE1 and so on"
        )
    if images.x_first:
        header.comments["NAXIS2"], header.comments["NAXIS3"] = "y", "x"
    header["DLBENCH"] = (dlbench.__version__, "version of dlbench")
    header["DLRUN"] = _printable(str(request.run))
    for line in (
        f"dlbench.predict: horizontal velocities by {request.network}",
        f"of {images.name}, divided by {median:.7g}, their median; border {request.border}",
        "Velocity i is that of pair i, midway between its frames.",
    ):
        header["HISTORY"] = _printable(line)
    return header


def _printable(text: str) -> str:
    """What FITS allows in a header."""
    return re.sub(r"[^ -~]", "?", text)


def _note_input(images: frames.Frames, missing: int) -> None:
    if missing:
        note(
            f"{images.name}: {missing} values are not finite; the network sees the median there, "
            "their velocities are NaN"
        )
    for what, value, usual, unit in (
        ("pixels", images.pixel_km, PIXEL_KM, "km"),
        ("cadence", images.cadence_s, CADENCE_S, "s"),
    ):
        if value is not None and abs(value / usual - 1.0) > TOLERANCE:
            note(f"{images.name}: {what} of {value:.3g} {unit}; DeepVel is for {usual:g} {unit}")


def _parse(arguments: list[str]) -> Request:
    line = command_line.parse(
        arguments,
        USAGE,
        {"tile": 256, "overlap": 48, "batch": 2, "border": 0},
        {"checkpoint", "key", "picture", "overwrite"},
    )
    if len(line.places) not in (2, 3):
        raise ConfigError(USAGE)
    run, source = Path(line.places[0]), line.places[1]
    line.refuse_checkpoint_of_file(run)
    picture = Path(line.options["picture"]) if "picture" in line.options else None
    output = Path(line.places[2]) if len(line.places) == 3 else _default_output(source)
    line.require_new(output, (".fits",), USAGE)
    if picture is not None:
        line.require_new(picture, (".png",), USAGE)
    return Request(
        run=run,
        source=source,
        output=output,
        checkpoint=line.options.get("checkpoint"),
        key=line.options.get("key"),
        picture=picture,
        **line.numbers,
    )


def _default_output(source: str) -> Path:
    first = Path(source if Path(source).exists() else source.split(",")[0])
    name = first.name
    for suffix in (".gz", ".fz", ".fits", ".fit", ".fts", ".h5", ".hdf5"):
        name = name.removesuffix(suffix)
    return Path(f"{name}_velocity.fits")
