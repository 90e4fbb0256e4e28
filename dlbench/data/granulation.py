"""Solar granulation: two images of the photosphere, and the horizontal velocities behind them.

The layouts are those that DeepVel (Asensio Ramos et al. 2017) and DeepVelU (Tremblay & Attie 2020)
are trained from. A folder holds one of them:

* ``NAME.h5`` with `intensity` (N, nx, ny, 2) and another with `velocity` (N, nx, ny, outputs) in
  the same order; their twins ``NAME_validation.h5``;
* ``NAME.npz`` with `input_train` and `output_train` of those shapes, and ``NAME_validation.npz``
  with `input_validation` and `output_validation` (or the names of the first).
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.data.archives import UNREADABLE
from dlbench.data.dataset import DataError, DataSet, Sample
from dlbench.data.windows import cut

FRAMES = 2
DEPTHS = ("1", "0.1", "0.01")
"""Optical depths (at 500 nm) of DeepVel's six outputs, each with vx and vy."""
KM_PER_ARCSEC = 725.0
"""On the Sun, seen from the mean distance of the Earth."""
INTENSITY, VELOCITY = "intensity", "velocity"
"""HDF5 data sets (N, nx, ny, 2) and (N, nx, ny, outputs)."""
UNIT = 10.0
"""km/s: velocities are stored in this unit, normalised to (v - minimum) / (maximum - minimum)."""
# Of the training set, per output: `network/normalization.npz` of aasensio/deepvel.
VELOCITY_MINIMUM = np.array(
    [-0.84247184, -0.7779094, -0.8458354, -0.87457716, -0.91456485, -0.86169815]
)
VELOCITY_MAXIMUM = np.array([0.86247784, 0.83632153, 0.8740655, 0.8852403, 0.9056968, 0.89461637])
PIXEL_KM, CADENCE_S = 39.6, 30.0
"""SUNRISE/IMaX, for which DeepVel was made; a file's attributes `pixel_km`, `cadence_s` win."""
MOST_COMPRESSED = 2000
"""Times that stored values grow when they are read: deflate reaches 1032."""
SUFFIXES = {"train": "", "val": "_validation"}


def component_names(outputs: int) -> tuple[str, ...]:
    """What velocities (..., outputs) are called: vx and vy at each depth."""
    if outputs == 2:
        return ("vx", "vy")
    if outputs == 2 * len(DEPTHS):
        return tuple(f"v{axis} tau={depth}" for depth in DEPTHS for axis in "xy")
    return tuple(f"v{'yx'[i % 2]} {(i + 1) // 2}" for i in range(1, outputs + 1))


class Granulation(DataSet):
    """Pairs of images with velocities in km/s, x along columns and y along rows.

    ``size`` smaller than the files' patches takes windows, anew in every epoch of training, from
    the middle in evaluation. ``x_axis`` is the image axis of the arrays that x runs along (0: (N,
    nx, ny, ...)); ``normalized`` says that velocities are stored as DeepVel has them,
    (v / 10 km/s - minimum) / (maximum - minimum), by the attributes `minimum` and `maximum` of
    `velocity` or else the published ones; false: km/s. ``held_out`` pairs at the end validate where
    there is no twin for that.
    """

    name = "granulation"
    task = "velocity"
    crops = True
    bands = ("first frame", "second frame")
    dtype = np.dtype(np.float32)
    units = "intensity / median"
    value_range = (0.0, 2.0)
    licence = "generated here; others as their makers say"
    source = "https://github.com/aasensio/deepvel, or python -m dlbench.data.granulation_files"
    layout = """\
two HDF5 files with the data sets intensity (N, nx, ny, 2) and velocity (N, nx, ny, 6), their twins
*_validation.h5 beside them; or npz files as DeepVelU has them"""

    def __init__(
        self,
        root: Path,
        size: tuple[int, int] | None = None,
        x_axis: int = 0,
        normalized: bool = True,
        held_out: int = 0,
    ) -> None:
        super().__init__(root, size)
        if x_axis not in (0, 1):
            raise DataError(f"data.options.x_axis is {x_axis}; allowed are 0 and 1")
        self._transposed = x_axis == 0
        self._pairs = _find(self.root)
        if held_out:
            self._hold_out(held_out)
        first = self._pairs["train"]
        self.splits = tuple(self._pairs)
        self.ground_sampling_distance = 1000.0 * _positive(first, "pixel_km", PIXEL_KM)
        self.cadence_s = _positive(first, "cadence_s", CADENCE_S)
        self._ranges = {split: _range(pairs, normalized) for split, pairs in self._pairs.items()}
        shapes = {s: p.shape if x_axis else p.shape[::-1] for s, p in self._pairs.items()}
        for split, shape in shapes.items():
            if size is not None and (size[0] > shape[0] or size[1] > shape[1]):
                raise DataError(
                    f"data.size is {list(size)}, but the patches of {self._pairs[split].path} have "
                    f"{shape[0]} x {shape[1]} pixels; set data.size to no more than that"
                )
        self.jitters = size is not None and tuple(size) != shapes["train"]

    @property
    def outputs(self) -> tuple[str, ...]:
        return component_names(self._pairs["train"].outputs)

    def require_split(self, split: str) -> None:
        if split == "val" and split not in self.splits:
            raise DataError(
                f"{self.root} holds no validation pairs; add the files' twins *_validation, or "
                "hold some of the training pairs out: data.options.held_out=NUMBER"
            )
        super().require_split(split)

    def count(self, split: str) -> int:
        self.require_split(split)
        return self._pairs[split].count

    def read(self, split: str, index: int, jitter: np.random.Generator | None = None) -> Sample:
        self.require_split(split)
        images, velocity = self._pairs[split].read(index)
        if not np.isfinite(images).all():
            raise DataError(
                f"{self.sample_name(split, index)} has intensities that are not finite; leave the "
                "pair out, or fill them"
            )
        if self._transposed:
            images, velocity = images.transpose(1, 0, 2), velocity.transpose(1, 0, 2)
        whole = images.shape[0], images.shape[1]
        row, column, height, width = cut(*whole, self.size or whole, jitter)
        window = np.s_[row : row + height, column : column + width]
        image = np.ascontiguousarray(images[window], np.float32)
        # Float64 in between: the stored values lie around 1/2, the velocities around 0.
        offset, scale = self._ranges[split]
        target = velocity[window].astype(np.float64) * scale + offset
        return image, target.astype(np.float32)

    def sample_name(self, split: str, index: int) -> str:
        return f"{self._pairs[split].path}, pair {index}"

    def _hold_out(self, count: int) -> None:
        train = self._pairs["train"]
        if "val" in self._pairs:
            raise DataError(
                f"data.options.held_out is {count}, but {self.root} holds validation pairs of its "
                "own; leave held_out away"
            )
        if not 0 < count < train.count:
            raise DataError(
                f"data.options.held_out is {count}; {train.path} has {train.count} pairs, so "
                f"allowed are 1 to {train.count - 1}"
            )
        self._pairs["val"] = train.part(train.count - count, train.count)
        self._pairs["train"] = train.part(0, train.count - count)


class _Pairs:
    """Images and velocities of one split, arrays or HDF5 data sets, from ``start`` to ``stop``."""

    def __init__(
        self, path: Path, images: Any, velocities: Any, facts: dict[str, Any], where: str
    ) -> None:
        wrong = None
        strange = next((x for x in (images, velocities) if not _is_numbers(x)), None)
        if strange is not None:
            kind = getattr(strange, "dtype", "no array")
            wrong = f"values of type {kind}; needed are whole or real numbers"
        elif len(images.shape) != 4 or images.shape[3] != FRAMES:
            wrong = f"images of shape {images.shape}; needed are (N, nx, ny, {FRAMES})"
        elif len(velocities.shape) != 4 or velocities.shape[3] % 2 or not velocities.shape[3]:
            wrong = f"velocities of shape {velocities.shape}; needed are (N, nx, ny, vx vy ...)"
        elif images.shape[:3] != velocities.shape[:3]:
            wrong = (
                f"images of shape {images.shape} and velocities of shape {velocities.shape}; they "
                "must be of the same pairs and pixels"
            )
        if wrong:
            raise DataError(f"{where} holds {wrong}")
        self.path = path
        self.facts = facts
        self.shape = tuple(images.shape[1:3])
        self.outputs = int(velocities.shape[3])
        self._images, self._velocities = images, velocities
        self._start, self._stop = 0, int(images.shape[0])

    @property
    def count(self) -> int:
        return self._stop - self._start

    def part(self, start: int, stop: int) -> _Pairs:
        part = object.__new__(_Pairs)
        part.__dict__.update(self.__dict__)
        part._start, part._stop = start, stop
        return part

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < self.count:
            raise IndexError(f"pair {index} of {self.count} in {self.path}")
        place = self._start + index
        try:
            return self._images[place], self._velocities[place]
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{self.path}: pair {place} cannot be read ({error}); the file is damaged: copy or "
                "generate it anew"
            ) from error


def _is_numbers(array: Any) -> bool:
    # NumPy gives a member of an npz that is no array as its bytes.
    return hasattr(array, "dtype") and array.dtype.kind in "iuf"


def require_stored(data: Any, where: str) -> None:
    """Raise `DataError` for an HDF5 data set whose file cannot hold what its header declares."""
    try:
        stored = data.id.get_storage_size()
    except RuntimeError as error:
        raise DataError(f"{where} is damaged ({error}): copy or generate it anew") from error
    if data.nbytes > MOST_COMPRESSED * stored:
        raise DataError(
            f"{where} declares {data.shape} of {data.dtype}, {data.nbytes} bytes, but stores "
            f"{stored}; the file is damaged, or was never filled: copy or generate it anew"
        )


def _positive(pairs: _Pairs, name: str, default: float) -> float:
    """A number that the file tells, or ``default`` where it does not."""
    value = np.asarray(pairs.facts.get(name, default))
    if value.dtype.kind not in "iuf" or value.size != 1 or not 0 < value.item() < np.inf:
        raise DataError(
            f"{pairs.path} has the attribute {name} {str(value)[:40]}; needed is one number above 0"
        )
    return float(value.item())


def _find(root: Path) -> dict[str, _Pairs]:
    """The pairs of each split that ``root`` holds, from whichever layout it has."""
    hdf5 = sorted(path for path in root.iterdir() if path.suffix in (".h5", ".hdf5"))
    npz = sorted(root.glob("*.npz"))
    if hdf5 and npz:
        raise DataError(
            f"{root} holds both HDF5 and npz files ({hdf5[0].name}, {npz[0].name}); keep one kind"
        )
    found = {}
    for split, suffix in SUFFIXES.items():
        pairs = _from_hdf5(root, hdf5, suffix) if hdf5 else _from_npz(root, npz, split, suffix)
        if pairs:
            found[split] = pairs
    if "train" not in found:
        raise DataError(
            f"{root} holds no training pairs; needed are an HDF5 file with the data set "
            "'intensity' and one with 'velocity', or an npz file with input_train and output_train"
        )
    kinds = {(pairs.shape, pairs.outputs) for pairs in found.values()}
    if len({outputs for _, outputs in kinds}) > 1:
        raise DataError(f"{root}: training and validation have different numbers of outputs")
    return found


def _from_hdf5(root: Path, paths: list[Path], suffix: str) -> _Pairs | None:
    import h5py

    held: dict[str, list[Any]] = {INTENSITY: [], VELOCITY: []}
    chosen = [path for path in paths if path.stem.endswith("_validation") == bool(suffix)]
    for path in chosen:
        try:
            file = h5py.File(path, "r")
            items = {key: file.get(key) for key in held}
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{path} cannot be read as HDF5 ({error}); close it where it is being written, or "
                "copy it anew if it is cut off"
            ) from error
        for key, files in held.items():
            if isinstance(items[key], h5py.Dataset):
                files.append(items[key])
    if not chosen:
        return None
    for key, files in held.items():
        if len(files) != 1:
            raise DataError(
                f"{root}: {len(files)} of {', '.join(p.name for p in chosen)} hold a data set "
                f"'{key}'; needed is exactly one"
            )
    (images,), (velocities,) = held[INTENSITY], held[VELOCITY]
    for data in (images, velocities):
        require_stored(data, f"{data.file.filename} ({data.name})")
    path = Path(images.file.filename)
    facts = {**dict(images.attrs), **dict(velocities.attrs)}
    return _Pairs(path, images, velocities, facts, f"{path} with {velocities.file.filename}")


def _from_npz(root: Path, paths: list[Path], split: str, suffix: str) -> _Pairs | None:
    chosen = [path for path in paths if path.stem.endswith("_validation") == bool(suffix)]
    if not chosen:
        return None
    if len(chosen) > 1:
        names = ", ".join(path.name for path in chosen)
        raise DataError(f"{root} holds {names}; needed is one file a split")
    path = chosen[0]
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in ("validation", "train") if suffix else ("train",):
                members = f"input_{name}.npy", f"output_{name}.npy"
                if set(members) <= set(file.zip.namelist()):
                    images, velocities = (_member(file.zip, member) for member in members)
                    return _Pairs(path, images, velocities, {}, str(path))
            keys = ", ".join(name[:40] for name in file.files[:20])
    except UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read as npz ({error}); copy it anew if it is cut off, and store "
            "arrays of numbers, no objects"
        ) from error
    raise DataError(f"{path} holds {keys or 'nothing'}; needed are input_train and output_train")


_NPY = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an npz; `ValueError` where it is shorter than its header says, which is told
    before memory is allotted."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        if version not in _NPY:
            raise ValueError(f"{name} is of version {version} of npy")
        shape, _, dtype = _NPY[version](member)
    held, said = archive.getinfo(name).file_size, math.prod(shape) * dtype.itemsize
    if said > held:
        raise ValueError(f"{name} says {shape} of {dtype}, {said} bytes, but holds {held}")
    with archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _range(pairs: _Pairs, normalized: bool) -> tuple[np.ndarray, np.ndarray]:
    """Offset and scale (outputs,) from what is stored to km/s."""
    if not normalized:
        return np.zeros(pairs.outputs), np.ones(pairs.outputs)
    low = np.asarray(pairs.facts.get("minimum", VELOCITY_MINIMUM))
    high = np.asarray(pairs.facts.get("maximum", VELOCITY_MAXIMUM))
    if not (_is_numbers(low) and _is_numbers(high)):
        raise DataError(
            f"{pairs.path} has minima of {low.dtype} and maxima of {high.dtype} as attributes of "
            "'velocity'; needed are numbers, one for each output"
        )
    low, high = low.astype(np.float64), high.astype(np.float64)
    if (
        low.shape != (pairs.outputs,)
        or high.shape != (pairs.outputs,)
        or not np.isfinite(high - low).all()
        or not (low < high).all()
    ):
        raise DataError(
            f"{pairs.path} has {pairs.outputs} velocities a pixel, normalised by minima of shape "
            f"{low.shape} and maxima of shape {high.shape}; give as many of each, minimum < "
            "maximum, as attributes of 'velocity', or data.options.normalized=false where they are "
            "stored in km/s"
        )
    return low * UNIT, (high - low) * UNIT
