"""Small, deterministic scene sets in the real layout of each data set, to learn and test on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from dlbench.data.dataset import DataError
from dlbench.data.options import check, of_maker

MINIATURES: dict[str, tuple[str, str]] = {
    "burned_area": ("dlbench.data.miniatures.burned_area", "make"),
    "camvid": ("dlbench.data.miniatures.camvid", "make"),
    "granulation": ("dlbench.data.granulation_files", "make_granulation"),
    "land_cover": ("dlbench.data.miniatures.land_cover", "make"),
    "plantations": ("dlbench.data.miniatures.plantations", "make"),
    "sentinel2_aafc": ("dlbench.data.miniatures.aafc", "make"),
    "sentinel2_cdl": ("dlbench.data.miniatures.cdl", "make"),
    "sentinel2_lucas": ("dlbench.data.miniatures.lucas", "make"),
    "potsdam": ("dlbench.data.miniatures.potsdam", "make"),
    "vaihingen": ("dlbench.data.scenes", "make_vaihingen"),
}
"""The module and function, of a new folder and a seed, that make it; the module's VERSION is raised
whenever the same arguments would give other samples."""


def make(name: str, folder: Path, seed: int = 0, **options: Any) -> Path:
    """Write the miniature of data set ``name`` to a new ``folder``, whole or not at all.

    Raises `DataError` for an unknown name, and for an option that is unknown or cannot be.
    """
    if name not in MINIATURES:
        raise DataError(f"there is no miniature of '{name}'; there are: {', '.join(MINIATURES)}")
    module, function = MINIATURES[name]
    maker = getattr(importlib.import_module(module), function)
    check(f"the miniature of {name}", {"seed": seed, **options}, of_maker(maker))
    found: Path = maker(Path(folder), seed=seed, **options)
    return found


def ensure(name: str, folder: Path) -> Path:
    """The folder under ``folder`` of this version's miniature, made if it is absent."""
    version = importlib.import_module(MINIATURES[name][0]).VERSION
    root = Path(folder) / f"{name}-miniature-v{version}"
    if not root.is_dir() or not any(root.iterdir()):
        print(f"generating {name} in {root}", file=sys.stderr, flush=True)
        make(name, root)
    return root
