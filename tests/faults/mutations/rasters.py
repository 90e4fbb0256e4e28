"""Damage to rasters and pictures, by GDAL and in their own bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from faults.mutations.any_file import ANY, HOSTILE, LARGEST_CROP, Mutation
from rasterio.windows import Window


def _raster(change: Callable[[np.ndarray, dict[str, Any], np.random.Generator], np.ndarray]) -> (
    Mutation
):  # fmt: skip
    """A raster written anew, as a GeoTIFF whatever its name says."""

    def mutation(file: Path, rng: np.random.Generator) -> None:
        with rasterio.open(file) as source:
            height, width = (min(side, LARGEST_CROP) for side in source.shape)
            values = source.read(window=Window(0, 0, width, height))
            profile = {"crs": source.crs, "transform": source.transform, "nodata": source.nodata}
            names = source.descriptions
        values = change(values, profile, rng)
        if profile["nodata"] is not None and values.dtype.kind in "iu":
            info = np.iinfo(values.dtype)
            if not info.min <= profile["nodata"] <= info.max:
                profile["nodata"] = None
        count, height, width = values.shape
        file.unlink()
        with rasterio.open(
            file, "w", driver="GTiff", count=count, height=height, width=width,
            dtype=values.dtype, **profile,
        ) as target:  # fmt: skip
            target.write(values)
            if len(names) >= count and "names" not in profile:
                target.descriptions = names[:count]

    return mutation


def _typed(values: np.ndarray, profile: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    kinds = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64",
             "complex64", "int64", "uint64")  # fmt: skip
    return values.astype(kinds[rng.integers(len(kinds))])


def _set(**changes: Any) -> Mutation:
    return _raster(lambda values, profile, rng: (profile.update(changes), values)[1])


def _place(change: Callable[[Affine], Affine]) -> Mutation:
    def changed(
        values: np.ndarray, profile: dict[str, Any], rng: np.random.Generator
    ) -> np.ndarray:
        profile["transform"] = change(profile["transform"])
        return values

    return _raster(changed)


def _missing(value: float) -> Mutation:
    def changed(
        values: np.ndarray, profile: dict[str, Any], rng: np.random.Generator
    ) -> np.ndarray:
        values = values.astype(np.float32)
        values[rng.random(values.shape) < rng.choice([0.1, 1.0])] = value
        return values

    return _raster(changed)


def _no_data(values: np.ndarray, profile: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    profile["nodata"] = 0
    return np.zeros_like(values)


def _codes(values: np.ndarray, profile: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    if values.dtype.kind in "iu":
        info = np.iinfo(values.dtype)
        drawn = rng.integers(info.min, info.max, values.shape, values.dtype, endpoint=True)
        return np.where(rng.random(values.shape) < 0.2, drawn, values)
    return values * 1e30


def _tag(file: Path, rng: np.random.Generator) -> None:
    """A tag of a TIFF's first directory, such as its width, set to a hostile number."""
    data = bytearray(file.read_bytes())
    if data[:2] != b"II" or data[2:4] != b"*\0":
        ANY["flipped"](file, rng)
        return
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    # Half of the time width, length, tile width and tile length, which memory is allotted by.
    entries = [start + 2 + 12 * n for n in range(count)]
    sizes = [e for e in entries if struct.unpack("<H", data[e : e + 2])[0] in (256, 257, 322, 323)]
    chosen = sizes if sizes and rng.random() < 0.5 else entries
    for entry in rng.choice(chosen, int(rng.integers(1, 3))):
        value = HOSTILE[rng.integers(len(HOSTILE))]
        struct.pack_into("<HII", data, int(entry) + 2, 4, 1, value)
    file.write_bytes(data)


RASTER: dict[str, Mutation] = {
    "of another dtype": _raster(_typed),
    "bands shuffled": _raster(lambda values, profile, rng: rng.permutation(values)),
    "a band less": _raster(lambda values, profile, rng: values[:-1] if len(values) > 1 else values),
    "a band more": _raster(lambda values, profile, rng: np.concatenate([values, values[:1]])),
    "in degrees": _set(crs="EPSG:4326"),
    "of another zone": _set(crs="EPSG:32755"),
    "of no CRS": _set(crs=None),
    "of no place": _set(crs=None, transform=Affine.identity()),
    "rotated": _place(lambda transform: transform @ Affine.rotation(20)),
    "upside down": _place(lambda transform: transform @ Affine.scale(1, -1)),
    "mirrored": _place(lambda transform: transform @ Affine.scale(-1, 1)),
    "far away": _place(lambda transform: Affine.translation(1e7, 1e7) @ transform),
    "of tiny pixels": _place(lambda transform: transform @ Affine.scale(1e-9)),
    "of huge pixels": _place(lambda transform: transform @ Affine.scale(1e12)),
    "of NaN pixels": _place(lambda transform: transform @ Affine.scale(float("nan"))),
    "smaller": _raster(lambda values, profile, rng: values[:, :-1, :-2]),
    "of one pixel": _raster(lambda values, profile, rng: values[:, :1, :1]),
    "larger": _raster(lambda values, profile, rng: np.pad(values, ((0, 0), (0, 3), (0, 5)))),
    "NaN": _missing(np.nan),
    "infinite": _missing(np.inf),
    "no data anywhere": _raster(_no_data),
    "codes out of table": _raster(_codes),
}
TIFF = RASTER | {"hostile tags": _tag, "hostile tags again": _tag}


def jp2_size(file: Path, rng: np.random.Generator) -> None:
    """Height or width in the image header box and the codestream's SIZ, or its tiles' size."""
    data = bytearray(file.read_bytes())
    value = HOSTILE[rng.integers(len(HOSTILE))]
    box, siz = data.find(b"ihdr"), data.find(b"\xff\x51")
    if box < 0 or siz < 0:
        ANY["flipped"](file, rng)
        return
    axis = int(rng.integers(2))
    if rng.random() < 0.7:
        struct.pack_into(">I", data, box + 8 - 4 * axis, value)
    struct.pack_into(">I", data, siz + 6 + 4 * axis + int(rng.choice([0, 0, 16])), value)
    file.write_bytes(data)


def _png_size(file: Path, rng: np.random.Generator) -> None:
    data = bytearray(file.read_bytes())
    struct.pack_into(">I", data, int(rng.choice([16, 20])), HOSTILE[rng.integers(len(HOSTILE))])
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    file.write_bytes(data)


def _picture(mode: str) -> Mutation:
    def mutation(file: Path, rng: np.random.Generator) -> None:
        from PIL import Image

        with Image.open(file) as picture:
            changed = picture.convert(mode)
        changed.save(file, "TIFF" if mode in ("F", "I") else "PNG")

    return mutation


def _cropped(file: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    with Image.open(file) as picture:
        changed = picture.crop((0, 0, picture.width - 1, picture.height))
    changed.save(file)


def _noisy(file: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    with Image.open(file) as picture:
        values = rng.integers(0, 256, np.array(picture).shape, np.uint8)
    Image.fromarray(values).save(file)


PNG: dict[str, Mutation] = {
    "hostile size": _png_size, "cropped": _cropped, "codes out of table": _noisy,
    **{f"of mode {mode}": _picture(mode) for mode in ("RGBA", "L", "1", "P", "I", "F", "RGB")},
}  # fmt: skip
