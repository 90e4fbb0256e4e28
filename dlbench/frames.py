"""Sequences of images from FITS and HDF5 files, and velocities into FITS files.

Layouts, as arrays in NumPy's order: ``(time, ny, nx)`` in either format; single ``(ny, nx)`` images
in several HDUs or files (FITS); and ``(pair, nx, ny, 2)``, the ``intensity`` of DeepVel's training
files (HDF5).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from astropy.io import fits

from dlbench import fits_header
from dlbench.checkpoint import write_atomically
from dlbench.data.dataset import DataError
from dlbench.data.granulation import INTENSITY, require_stored

Read = Callable[[], np.ndarray]


@dataclass
class Frames:
    """Images of one size, read one at a time, and the pairs between which things moved."""

    name: str
    """The file, for messages."""
    reads: list[Read]
    shape: tuple[int, int]
    """(ny, nx) in pixels."""
    pairs: list[tuple[int, int]]
    header: fits.Header = field(default_factory=fits.Header)
    """Of the images, axis 1 being x; empty where the format has none."""
    pixel_km: float | None = None
    cadence_s: float | None = None
    """What the file tells of them."""
    x_first: bool = False
    """Whether the file has x before y; frames are ``(ny, nx)`` all the same."""

    def read(self, index: int) -> np.ndarray:
        """Frame ``index``, (ny, nx) float32; `DataError` where the file is damaged."""
        try:
            with warnings.catch_warnings(), np.errstate(over="ignore"):  # beyond float32 is inf
                warnings.simplefilter("ignore")
                return np.ascontiguousarray(self.reads[index](), np.float32)
        except Exception as error:  # damaged bytes reach decompressors, which raise at will
            raise DataError(
                f"frame {index} of {self.name} cannot be read ({_line(error)}); the file is "
                "incomplete or damaged: copy it again"
            ) from error

    def read_pairs(self) -> Iterator[np.ndarray]:
        """Each pair in turn, (ny, nx, 2) float32; a frame of two pairs is read once."""
        held: dict[int, np.ndarray] = {}
        for pair in self.pairs:
            held = {index: held[index] if index in held else self.read(index) for index in pair}
            yield np.stack([held[index] for index in pair], axis=-1)

    def median(self) -> tuple[float, int]:
        """The median of all finite intensities, and how many are not finite."""
        value, count = streamed_median(lambda: map(self.read, range(len(self.reads))))
        missing = len(self.reads) * self.shape[0] * self.shape[1] - count
        if not value > 0.0:
            raise DataError(
                f"{self.name}: the median of its {count} finite values is {value:g}; intensities "
                "are divided by it, so it must be positive: give calibrated intensities"
            )
        return value, missing


@contextmanager
def opened(source: str, key: str | None = None, x_axis: int = 0) -> Iterator[Frames]:
    """The frames in ``source``: a file, or FITS files of one frame each with commas between.

    ``key`` names the data set of an HDF5 file or the HDU of a FITS file, where there are several;
    ``x_axis`` is the image axis of HDF5 pairs that x runs along, as `data.granulation` has it.
    Raises `DataError` that names the file, what it holds and what is needed.
    """
    paths = [source] if Path(source).exists() else source.split(",")
    for path in paths:
        if not Path(path).is_file():
            raise DataError(
                f"there is no file {path}; the input is a FITS or HDF5 file, or FITS files of one "
                "frame each with commas between"
            )
    with ExitStack() as stack:
        if len(paths) == 1 and h5py.is_hdf5(source):
            yield _from_hdf5(source, key, x_axis == 0, stack)
            return
        parts = [_from_fits(path, key, stack) for path in paths]
        for part in parts:
            if len(parts) > 1 and len(part.reads) > 1:
                raise DataError(
                    f"{part.name} holds {len(part.reads)} frames; of several files each holds one"
                )
            if part.shape != parts[0].shape:
                raise DataError(
                    f"{part.name} has {_pixels(part.shape)}, {parts[0].name} "
                    f"{_pixels(parts[0].shape)}; all frames must be of one size"
                )
        reads = [read for part in parts for read in part.reads]
        header = parts[0].header
        yield Frames(
            source,
            reads,
            parts[0].shape,
            _consecutive(source, reads),
            header,
            fits_header.pixel_km(header),
            fits_header.cadence_s(header),
        )


def write_velocity(path: Path, header: fits.Header, planes: Iterable[np.ndarray]) -> None:
    """Write ``planes`` one after the other as float32 under ``header``, whole or not at all.

    The file is a FITS image of the ``NAXISn`` in the header, a plane all of these but the last.
    """

    def write(file: IO[bytes]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # long comments are cut
            file.write(header.tostring().encode("ascii"))
        for plane in planes:
            file.write(np.ascontiguousarray(plane, ">f4").tobytes())
        file.write(b"\0" * (-file.tell() % fits_header.BLOCK))

    write_atomically(path, write)


def streamed_median(arrays: Callable[[], Iterable[np.ndarray]]) -> tuple[float, int]:
    """The exact median of the finite values of float32 arrays, and their number.

    ``arrays`` is called twice and gives the same each time. Radix selection: the first pass counts
    the values by their upper 16 bits, the second those near the middle by their lower ones, so no
    more than one array is held. No finite value has the median NaN.
    """
    upper = np.zeros(2**16, np.int64)
    for array in arrays():
        upper += np.bincount(_ordered(array) >> 16, minlength=2**16)
    count = int(upper.sum())
    if not count:
        return float("nan"), 0
    middle = ((count - 1) // 2, count // 2)
    bins = [int(np.searchsorted(upper.cumsum(), rank, side="right")) for rank in middle]
    lower = {one: np.zeros(2**16, np.int64) for one in bins}
    for array in arrays():
        keys = _ordered(array)
        for one, counts in lower.items():
            counts += np.bincount(keys[keys >> 16 == one] & 0xFFFF, minlength=2**16)
    found = []
    for rank, one in zip(middle, bins, strict=True):
        rest = rank - upper[:one].sum()
        key = one << 16 | int(np.searchsorted(lower[one].cumsum(), rest, side="right"))
        bits = key ^ (0x80000000 if key >> 31 else 0xFFFFFFFF)
        found.append(float(np.uint32(bits).view(np.float32)))
    return sum(found) / 2.0, count


def _ordered(array: np.ndarray) -> np.ndarray:
    """The finite values as uint32 that sort as they do."""
    bits = array[np.isfinite(array)].view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))


def _from_fits(path: str, key: str | None, stack: ExitStack) -> Frames:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="File may have been truncated")
            fits_header.require_axes(path)
            file = stack.enter_context(fits.open(path))
            images = {i: hdu for i, hdu in enumerate(file) if hdu.is_image and hdu.shape}
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as FITS or HDF5 ({_line(error)}); it is another format, or "
            "incomplete: copy it again"
        ) from error
    held = "; ".join(f"{i} {hdu.name} {hdu.shape}".replace("  ", " ") for i, hdu in images.items())
    if key is not None:
        images = {i: x for i, x in images.items() if key.upper() in (x.name.upper(), str(i))}
        if not images:
            raise DataError(f"{path} has no image HDU '{key}'; it has: {held or 'none'}")
    cubes = [hdu for hdu in images.values() if len(hdu.shape) == 3 and 0 not in hdu.shape]
    planes = [hdu for hdu in images.values() if len(hdu.shape) == 2 and 0 not in hdu.shape]
    if len(cubes) > 1:
        raise DataError(f"{path} holds {len(cubes)} sequences: {held}; choose one with key=NUMBER")
    if not cubes and not planes:
        raise DataError(
            f"{path} holds no sequence of images; its image HDUs: {held or 'none'}; needed is "
            "(time, ny, nx), or (ny, nx) in several HDUs"
        )
    if cubes:
        cube = cubes[0]
        reads = [_part(cube.section, index) for index in range(cube.shape[0])]
        return Frames(path, reads, cube.shape[1:], [], cube.header)
    if len({hdu.shape for hdu in planes}) > 1:
        raise DataError(f"{path}: its images differ in size: {held}; all must be of one size")
    reads = [_part(hdu.section, slice(None)) for hdu in planes]
    return Frames(path, reads, planes[0].shape, [], planes[0].header)


def _from_hdf5(path: str, key: str | None, x_first: bool, stack: ExitStack) -> Frames:
    found: dict[str, h5py.Dataset] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    try:
        file = stack.enter_context(h5py.File(path))
        file.visititems(note)
    except Exception as error:
        raise DataError(
            f"{path} is an HDF5 file that cannot be read ({_line(error)}); it is incomplete or "
            "damaged: copy it again"
        ) from error
    fitting = {name: x for name, x in found.items() if _is_sequence(x) or _is_pairs(x)}
    held = "; ".join(f"{name} {x.shape} {x.dtype}" for name, x in found.items()) or "none"
    needed = "needed are numbers (time, ny, nx), or (pair, nx, ny, 2) as DeepVel's intensity"
    if key is not None:
        if key.strip("/") not in fitting:
            what = "cannot be used" if key.strip("/") in found else "is not there"
            raise DataError(f"{path}: data set '{key}' {what}; {needed}; it holds: {held}")
        name = key.strip("/")
    else:
        fitting = {
            name: x
            for name, x in fitting.items()
            if _is_sequence(x) or name.split("/")[-1] == INTENSITY
        }
        if len(fitting) != 1:
            raise DataError(
                f"{path} holds {len(fitting)} data sets that may be meant; choose one with "
                f"key=NAME; {needed}; it holds: {held}"
            )
        (name,) = fitting
    data, title = fitting[name], f"{path} ({name})"
    require_stored(data, title)
    pixel, cadence = (_number(data, fact) for fact in ("pixel_km", "cadence_s"))
    if _is_sequence(data):
        reads = [_part(data, index) for index in range(data.shape[0])]
        pairs, shape, x_first = _consecutive(title, reads), data.shape[1:], False
    else:
        images = itertools.product(range(data.shape[0]), (0, 1))
        reads = [_image(data, index, frame, x_first) for index, frame in images]
        pairs = [(2 * i, 2 * i + 1) for i in range(data.shape[0])]
        shape = data.shape[2:0:-1] if x_first else data.shape[1:3]
    return Frames(title, reads, shape, pairs, fits.Header(), pixel, cadence, x_first)


def _number(data: h5py.Dataset, name: str) -> float | None:
    value = np.asarray(data.attrs.get(name, np.nan))
    known = value.dtype.kind in "iuf" and value.size == 1 and np.isfinite(value).all()
    return float(value.item()) if known else None


def _is_sequence(data: h5py.Dataset) -> bool:
    return data.dtype.kind in "iuf" and data.ndim == 3 and 0 not in data.shape


def _is_pairs(data: h5py.Dataset) -> bool:
    numbers = data.dtype.kind in "iuf" and data.ndim == 4 and 0 not in data.shape
    return numbers and data.shape[3] == 2


def _part(data: Any, index: Any) -> Read:
    return lambda: data[index]


def _image(data: h5py.Dataset, index: int, frame: int, x_first: bool) -> Read:
    return lambda: data[index, :, :, frame].T if x_first else data[index, :, :, frame]


def _consecutive(name: str, reads: list[Read]) -> list[tuple[int, int]]:
    if len(reads) < 2:
        raise DataError(
            f"{name} holds one frame; velocities need two or more: a (time, ny, nx) array, or FITS "
            "files of one frame each with commas between: FIRST.fits,SECOND.fits"
        )
    return [(index, index + 1) for index in range(len(reads) - 1)]


def _pixels(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]} pixels"


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
