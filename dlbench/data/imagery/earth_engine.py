"""Earth Engine's TFRecord exports of images: patches that a mixer file places on a grid.

``NAME-00000.tfrecord.gz`` and so on hold the patches row by row, ``NAME-mixer.json`` their number,
size and projection (https://developers.google.com/earth-engine/guides/tfrecord). Patches cannot be
read in windows, so they are laid out once as a GeoTIFF in the user's cache folder, which is read as
an export in that format is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import IO, Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid
from dlbench.data.imagery import tfrecord
from dlbench.data.raster_writing import Written, writing
from dlbench.data.scenes import default_folder, new_folder

MIXER = re.compile(r"(?P<name>.*?)[-_]?mixer\.json", re.IGNORECASE)
PATCHES = r"[-_]?(\d{5})?\.tfrecord(\.gz)?"
"""What follows the name."""
SUFFIXES = (".tfrecord", ".tfrecord.gz")
NO_TABLES = (
    "tables have no place on a map, so they are not read: export the image that they were sampled "
    "from (Export.image.toDrive, fileFormat 'GeoTIFF', or 'TFRecord' with its mixer file), and "
    "the labels as an image or as shapes"
)
LARGEST = 10**6
"""Pixels along the side of an image, and patches in one: a damaged mixer may tell of any number."""
VERSION = 1
"""Raised whenever the same export would be laid out in another way."""


@dataclass(frozen=True)
class Mixer:
    """How the patches of an export lie: ``across`` and ``down`` of them, of (height, width)."""

    file: Path
    name: str
    grid: Grid
    patch: tuple[int, int]
    across: int
    down: int

    def windows(self) -> Iterator[Window]:
        """The pixels of each patch, in the order of the records."""
        height, width = self.patch
        for number in range(self.across * self.down):
            row, column = divmod(number, self.across)
            yield Window(column * width, row * height, width, height)

    def parts(self) -> list[Path]:
        """The files of the patches, in order. Raises `DataError` where there are none."""
        names = re.compile(re.escape(self.name) + PATCHES, re.IGNORECASE)
        found = sorted(e for e in self.file.parent.iterdir() if names.fullmatch(e.name))
        if not found:
            raise DataError(
                f"{self.file} has no patches beside it: {self.name}-00000.tfrecord.gz and so on; "
                "fetch all files of the export to one folder"
            )
        return found


def is_export(path: Path) -> bool:
    """Whether a file's name is that of an export's mixer or patches."""
    return bool(MIXER.fullmatch(path.name)) or path.name.lower().endswith(SUFFIXES)


def mixers(entries: Sequence[Path]) -> list[Mixer]:
    """The exports that ``entries``, mixers and patches, are of. Raises `DataError` for patches
    without a mixer."""
    found = [entry for entry in entries if MIXER.fullmatch(entry.name)]
    patches = [entry for entry in entries if entry not in found]
    for entry in patches:
        if not entry.is_file():
            raise DataError(f"{entry} does not exist; give the export's mixer file")
    for folder in {entry.parent for entry in patches}:
        found += [e for e in sorted(folder.iterdir()) if MIXER.fullmatch(e.name)]
    read = [read_mixer(file) for file in dict.fromkeys(found)]
    parts = {part: mixer for mixer in read for part in mixer.parts()}
    for entry in patches:
        if entry not in parts:
            _refuse_table(entry)
            raise DataError(
                f"{entry} has no mixer file beside it (NAME-mixer.json), so the place of its "
                "patches is unknown; fetch it too, or export the image anew: tables of "
                "neighbourhoods have none, nor have exports with a maskedThreshold"
            )
    asked = {parts[entry].file for entry in patches}
    return [mixer for mixer in read if mixer.file in asked or mixer.file in entries]


def _refuse_table(file: Path) -> None:
    """Raise `DataError` for records that are features of a table rather than patches: numbers of
    several counts, such as a label beside a neighbourhood of each band, or single ones."""
    example = next(tfrecord.read(file), {})
    counts = {name: values.size for name, values in example.items()}
    if not counts or (len(set(counts.values())) == 1 and min(counts.values()) > 1):
        return
    held = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())[:6])
    more = ", ..." if len(counts) > 6 else ""
    raise DataError(f"{file} is a table of features ({held}{more} values in each); {NO_TABLES}")


def is_table(file: Path) -> bool:
    """Whether a file's name is that of a table as text."""
    return file.suffix.lower() == ".csv"


def refuse_csv(file: Path) -> None:
    """Raise `DataError` for a table as text."""
    if is_table(file):
        raise DataError(f"{file} is a table; {NO_TABLES}")


def read_mixer(file: Path) -> Mixer:
    """Raises `DataError` for a file that is damaged, or patches that are not north-up."""
    match = MIXER.fullmatch(file.name)
    assert match is not None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        projection = content["projection"]
        a, b, c, d, e, f = (float(v) for v in projection["affine"]["doubleMatrix"])
        crs = CRS.from_user_input(projection["crs"])
        width, height = (int(v) for v in content["patchDimensions"])
        across, total = int(content["patchesPerRow"]), int(content["totalPatches"])
        down = total // across
    except FileNotFoundError:
        raise DataError(f"{file} does not exist") from None
    except (
        OSError, ValueError, TypeError, KeyError, ZeroDivisionError, CRSError, RecursionError,
        OverflowError,
    ) as error:  # fmt: skip
        raise DataError(
            f"{file} is no mixer file of an Earth Engine export ({type(error).__name__}: {error}); "
            "fetch it again"
        ) from error
    if b or d or a <= 0 or e >= 0 or not np.isfinite([a, c, e, f]).all():
        raise DataError(
            f"{file} has the affine {[a, b, c, d, e, f]}, which is not north-up; export it with "
            "such a crsTransform"
        )
    if min(width, height, across, down) < 1 or down * across != total:
        raise DataError(
            f"{file} tells of {total} patches of {width} x {height}, {across} in a row, which "
            "makes no rectangle; fetch it again"
        )
    if max(width * across, height * down, total) > LARGEST:
        raise DataError(f"{file} tells of {height * down} x {width * across} pixels; it is damaged")
    grid = Grid(crs, Affine(a, b, c, d, e, f), height * down, width * across)
    return Mixer(file, match["name"], grid, (height, width), across, down)


def as_geotiff(mixer: Mixer) -> Path:
    """The export as a GeoTIFF of its name, its bands described, in the cache folder.

    It is laid out anew when a file of the export has another size or time. Raises `DataError` for
    patches that are missing or damaged, `UserError` where the disk does not take them.
    """
    parts = mixer.parts()
    stamps = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in
              (mixer.file, *parts)]  # fmt: skip
    mark = hashlib.sha256(json.dumps([VERSION, stamps]).encode()).hexdigest()[:32]
    path = default_folder() / "earth_engine" / mark / f"{mixer.name or 'export'}.tif"
    if not path.is_file():
        room = "make room, or let the environment variable XDG_CACHE_HOME name a folder elsewhere"
        with writing(path, room), new_folder(path.parent, path.name, "export") as unfinished:
            _lay_out(mixer, parts, unfinished / path.name)
    return path


def _lay_out(mixer: Mixer, parts: list[Path], path: Path) -> None:
    records = (
        (part, number, example)
        for part in parts
        for number, example in enumerate(tfrecord.read(part))
    )
    dataset: Any = None
    bands: list[str] = []
    done, written = 0, Written()
    try:
        for window, (part, number, example) in zip(mixer.windows(), records, strict=False):
            place = f"patch {number} of {part}"
            if dataset is None:
                bands = sorted(example, key=_natural)
                dataset = _created(path, mixer, bands, example, place)
            if sorted(example, key=_natural) != bands:
                raise DataError(f"{place} has the bands {', '.join(example)}, others {bands}")
            planes = [_inner(example[band], mixer, f"{place}, band {band},") for band in bands]
            values = np.stack(planes).astype(dataset.dtypes[0])
            dataset.write(values, window=window)
            written.add(values)
            done += 1
    finally:
        if dataset is not None:
            dataset.close()
    expected = mixer.across * mixer.down
    if done < expected or next(records, None) is not None:
        held = f"{done} of them" if done < expected else "more"
        raise DataError(
            f"{mixer.file} tells of {expected} patches, but {', '.join(p.name for p in parts)} "
            f"hold {held}; fetch all files of one export"
        )
    written.require_in(path)


def _created(
    path: Path, mixer: Mixer, bands: list[str], example: dict[str, np.ndarray], place: str
) -> Any:
    if not bands:
        raise DataError(f"{place} holds no band; export numbers")
    dtype = np.result_type(*(values.dtype for values in example.values()))
    # Of 64 bits only a few programs read GeoTIFFs, and no sensor has so many.
    dtype = np.dtype(np.int32) if dtype == np.int64 else dtype
    profile = {"tiled": True, "blockxsize": 256, "blockysize": 256, "bigtiff": "if_safer"}
    grid = mixer.grid
    dataset = rasterio.open(
        path, "w", driver="GTiff", height=grid.height, width=grid.width, count=len(bands),
        dtype=dtype, crs=grid.crs, transform=grid.transform, interleave="pixel", **profile,
    )  # fmt: skip
    dataset.descriptions = bands
    return dataset


def _inner(values: np.ndarray, mixer: Mixer, place: str) -> np.ndarray:
    """A patch (height, width) without the margin by which a kernel makes neighbours overlap, which
    the mixer does not tell."""
    height, width = mixer.patch
    margin = (isqrt((height - width) ** 2 + 4 * values.size) - height - width) // 2
    rows, columns = height + margin, width + margin
    if margin < 0 or rows * columns != values.size:
        raise DataError(
            f"{place} has {values.size} values, but {mixer.file} tells of patches of "
            f"{height} x {width}; export with one kernelSize for both sides, or none, and without "
            "collapseBands"
        )
    top = margin // 2
    return values.reshape(rows, columns)[top : top + height, top : top + width]


def _natural(band: str) -> list[Any]:
    """So that B2 comes before B10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", band)]


def write_patches(file: IO[bytes], compressed: bool, source: Path, mixer: Mixer) -> None:
    """Write a raster on the grid of ``mixer`` as patches in its order, each band under its
    description, whole numbers as such: what ``earthengine upload image`` takes with the mixer.
    """
    with rasterio.open(source) as raster, tfrecord.Writer(file, compressed) as writer:
        for window in mixer.windows():
            values = raster.read(window=window)
            names = [name or f"band_{i}" for i, name in enumerate(raster.descriptions, start=1)]
            writer.write({n: plane.ravel() for n, plane in zip(names, values, strict=True)})
