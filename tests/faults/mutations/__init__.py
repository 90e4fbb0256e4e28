"""Damage to files: deterministic by the generator that it draws from, some by the file's format."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from faults.mutations.any_file import ANY, Mutation, flipped
from faults.mutations.archives import member
from faults.mutations.arrays import FITS, HDF5, NPZ, ZIP
from faults.mutations.networks import KERAS
from faults.mutations.rasters import PNG, RASTER, TIFF, jp2_size
from faults.mutations.texts import CSV, JSON, TEXT, XML, YAML
from faults.mutations.vectors import VECTOR, dbf, sql

SUFFIXES: dict[str, dict[str, Mutation]] = {
    ".tif": TIFF, ".jp2": RASTER | {"hostile size": jp2_size, "hostile size too": jp2_size},
    ".png": PNG, ".xml": XML, ".yaml": YAML, ".json": JSON, ".txt": TEXT, ".csv": CSV,
    ".npz": NPZ, ".h5": HDF5, ".fits": FITS, ".gpkg": VECTOR | {
        f"a statement, {n}": sql for n in range(6)},
    ".shp": VECTOR | {"a hostile header": dbf}, ".dbf": {"a hostile header": dbf},
    ".shx": {"a hostile header": dbf}, ".prj": TEXT, ".geojson": VECTOR | JSON, ".keras": KERAS,
}  # fmt: skip
SUFFIXES[".zip"] = ZIP | {
    f"a file inside, {n}": member({".jp2": SUFFIXES[".jp2"], ".xml": XML}) for n in range(12)
}


def mutations_of(file: Path) -> dict[str, Mutation]:
    """What may be done to a file, by name."""
    return ANY | SUFFIXES.get(file.suffix.lower(), {})


def mutate(folder: Path, rng: np.random.Generator) -> tuple[Path, str]:
    """Damage one file of a tree; which, and how. Each kind of file has an equal chance."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"
    )
    suffix = rng.choice(sorted({file.suffix for file in files}))
    alike = [file for file in files if file.suffix == suffix]
    file = alike[rng.integers(len(alike))]
    special = SUFFIXES.get(file.suffix.lower(), {})
    chosen = special if special and rng.random() < 0.6 else ANY
    name = list(chosen)[rng.integers(len(chosen))]
    whole = file.read_bytes()
    try:
        chosen[name](file, rng)
    except Exception:  # what no library writes cannot arrive either
        file.unlink(missing_ok=True)
        file.write_bytes(flipped(bytearray(whole), rng))
        name += " (cannot be written: flipped)"
    return file, name


def copy(tree: Path, folder: Path) -> Path:
    return Path(shutil.copytree(tree, folder))
