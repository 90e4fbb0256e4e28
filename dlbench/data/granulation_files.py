"""Generated granulation in DeepVel's HDF5 layout.

``python -m dlbench.data.granulation_files FOLDER [train=30000] [val=1000] [size=50] [seed=0]
[texture=FRAME.fits]`` writes as much as DeepVel was trained on (Asensio Ramos et al. 2017). Its own
pairs come from a simulation and are not published; these stand in, in the same files and units.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np

from dlbench.data.dataset import DataError
from dlbench.data.granulation import (
    INTENSITY,
    KM_PER_ARCSEC,
    SUFFIXES,
    UNIT,
    VELOCITY,
    VELOCITY_MAXIMUM,
    VELOCITY_MINIMUM,
)
from dlbench.errors import exit_status

VERSION = 3
"""Raised whenever the same arguments would give other values."""
IMAGE_FILES = {split: f"database_images{suffix}.h5" for split, suffix in SUFFIXES.items()}
VELOCITY_FILES = {split: f"database_velocity{suffix}.h5" for split, suffix in SUFFIXES.items()}

PAIRS = {"train": 4400, "val": 200}
SIZE = 50
"""Pixels of a side, as in DeepVel's training."""
SCENE = 500
"""Pixels of a side of the scenes that are cut into pairs."""
PROOF = "manifest.json"

Progress = Callable[[str, int, int], None]
"""Told the split, the pairs written and the pairs wanted."""


def make_granulation(
    folder: Path,
    pairs: dict[str, int] | None = None,
    size: int = SIZE,
    seed: int = 0,
    texture: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write so many ``pairs`` of ``size`` pixels for each split to a new ``folder``.

    A pair follows from seed, split, place, size and texture alone: a longer file begins with the
    shorter one. ``texture`` is a FITS frame, see `read_texture`. The folder appears whole or not at
    all; of two processes that make it, the first wins. Raises `DataError` for what cannot be made.
    """
    from dlbench.data.scenes import new_folder  # What only a maker needs takes long to import.

    pairs = PAIRS if pairs is None else pairs
    progress = progress or _Ticker()
    if not pairs.keys() <= IMAGE_FILES.keys() or min(pairs.values(), default=0) < 1:
        raise DataError(f"pairs={pairs}: allowed are 1 or more for {', '.join(IMAGE_FILES)}")
    if not 1 <= size <= SCENE:
        raise DataError(f"size={size} pixels: allowed are 1 to {SCENE}")
    if not 0 <= seed < 2**63:
        raise DataError(f"seed={seed}: allowed are 0 to 2^63 - 1")
    frame = None if texture is None else read_texture(Path(texture))
    manifest = {"generator": VERSION, "seed": seed, "pairs": pairs, "size": size}
    manifest["texture"] = None if texture is None else Path(texture).name
    try:
        with new_folder(folder, PROOF, "granulation") as unfinished:
            for split, count in pairs.items():
                _write_split(unfinished, split, count, size, seed, frame, progress)
            (unfinished / PROOF).write_text(json.dumps(manifest, indent=1) + "\n")
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error}); name another folder") from None
    return Path(folder)


def read_texture(path: Path) -> np.ndarray:
    """A FITS frame (y, x), scaled by its header's CDELT1 to the cells that scenes are made on."""
    from astropy.io import fits
    from scipy.ndimage import gaussian_filter, zoom

    from dlbench.data.photosphere import FINE, GRANULE_SIZE, PIXEL

    try:
        frame, header = fits.getdata(path, header=True)
        scale = KM_PER_ARCSEC * float(header["CDELT1"]) if header["CUNIT1"] == "arcsec" else 0.0
        frame = np.asarray(frame, np.float32)
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise DataError(f"{path} cannot be used ({error}): needed is a FITS image") from None
    if frame.ndim != 2 or not np.isfinite(frame).all():
        raise DataError(f"{path}: needed is one image (y, x) of numbers, not {frame.shape}")
    if not 0 < scale <= PIXEL or min(frame.shape) * scale < GRANULE_SIZE:
        raise DataError(
            f"{path} has {frame.shape[1]} x {frame.shape[0]} pixels of {scale:.1f} km by CDELT1, "
            f"CUNIT1; needed are {GRANULE_SIZE:.0f} km or more in pixels of {PIXEL} km or less"
        )
    shrink = PIXEL / FINE / scale
    return zoom(gaussian_filter(frame, max(0, shrink - 1) / 2), 1 / shrink)


def _write_split(
    root: Path,
    split: str,
    count: int,
    size: int,
    seed: int,
    texture: np.ndarray | None,
    progress: Progress,
) -> None:
    from dlbench.data.photosphere import CADENCE, PIXEL

    with ExitStack() as stack:
        datasets = []
        for names, name, depth in ((IMAGE_FILES, INTENSITY, 2), (VELOCITY_FILES, VELOCITY, 6)):
            file = stack.enter_context(h5py.File(root / names[split], "w"))
            shape = (size, size, depth)
            dataset = file.create_dataset(name, (count, *shape), np.float32, chunks=(1, *shape))
            dataset.attrs.update({"generator": VERSION, "seed": seed})
            datasets.append(dataset)
        intensity, velocity = datasets
        intensity.attrs.update({"pixel_km": PIXEL, "cadence_s": CADENCE})
        velocity.attrs.update(
            {"minimum": VELOCITY_MINIMUM, "maximum": VELOCITY_MAXIMUM, "unit": "10 km/s"}
        )
        done = 0
        for images, velocities in _scenes(split, size, seed, texture):
            some = slice(done, min(count, done + len(images)))
            intensity[some] = images[: some.stop - done]
            velocity[some] = _normalized(velocities[: some.stop - done])
            done = some.stop
            progress(split, done, count)
            if done == count:
                break


def _scenes(
    split: str, size: int, seed: int, texture: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scene after scene, cut into tiles: images (tiles, x, y, 2), velocities (tiles, x, y, 6)."""
    from dlbench.data.photosphere import scene

    side = SCENE if 2 * size <= SCENE else size
    number = list(IMAGE_FILES).index(split)
    while True:
        images, velocities = scene(seed, number, side, texture)
        yield _tiles(images, size), _tiles(velocities, size)
        number += len(IMAGE_FILES)


def _tiles(scene: np.ndarray, size: int) -> np.ndarray:
    """Non-overlapping tiles (tiles, x, y, channels) of a scene (y, x, channels)."""
    n = len(scene) // size
    blocks = scene[: n * size, : n * size].reshape(n, size, n, size, -1)
    return blocks.transpose(0, 2, 3, 1, 4).reshape(n * n, size, size, -1)


def _normalized(velocity: np.ndarray) -> np.ndarray:
    return (velocity / UNIT - VELOCITY_MINIMUM) / (VELOCITY_MAXIMUM - VELOCITY_MINIMUM)


def main(arguments: list[str]) -> int:
    return exit_status("dlbench.data.granulation_files", lambda: _make(arguments))


def _make(arguments: list[str]) -> None:
    usage = (
        "usage: python -m dlbench.data.granulation_files FOLDER "
        "[train=30000] [val=1000] [size=50] [seed=0] [texture=FRAME.fits]"
    )
    folders = [a for a in arguments if "=" not in a]
    options = dict(a.split("=", 1) for a in arguments if "=" in a)
    texture = options.pop("texture", None)
    numbers = {"train": 30_000, "val": 1000, "size": SIZE, "seed": 0}
    if len(folders) != 1 or not options.keys() <= numbers.keys():
        raise DataError(usage)
    for name, value in options.items():
        if not value.isascii() or not value.isdecimal():
            raise DataError(f"{name}={value}: allowed are whole numbers; {usage}")
        numbers[name] = int(value)
    folder = Path(folders[0])
    if (folder / PROOF).exists():
        raise DataError(f"{folder} holds generated pairs already; name a new folder or remove it")
    pairs = {split: numbers[split] for split in IMAGE_FILES}
    frame = None if texture is None else Path(texture)
    make_granulation(folder, pairs, numbers["size"], numbers["seed"], frame)
    print(f"{folder}: {pairs['train']} training pairs, {pairs['val']} validation pairs")


class _Ticker:
    """A line on stderr now and then about work that takes long."""

    def __init__(self, every: float = 5.0) -> None:
        self.every = every
        self.last = time.monotonic()

    def __call__(self, split: str, done: int, wanted: int) -> None:
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            print(f"'{split}': {done} of {wanted} pairs", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
