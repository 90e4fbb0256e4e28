"""Data sets by name; importing this loads no TensorFlow (that is `dlbench.data.pipeline`)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from dlbench.data.dataset import IGNORE, ClassInfo, DataError, DataSet
from dlbench.data.options import check, of_kind

__all__ = ["DATASETS", "IGNORE", "ClassInfo", "DataError", "DataSet", "build", "kind_of"]

DATASETS: dict[str, tuple[str, str]] = {
    "burned_area": ("dlbench.data.burned_area", "BurnedArea"),
    "camvid": ("dlbench.data.camvid", "CamVid"),
    "granulation": ("dlbench.data.granulation", "Granulation"),
    "land_cover": ("dlbench.data.land_cover", "LandCover"),
    "plantations": ("dlbench.data.labels.plantations", "Plantations"),
    "sentinel2_aafc": ("dlbench.data.crop_maps", "Sentinel2AAFC"),
    "sentinel2_cdl": ("dlbench.data.crop_maps", "Sentinel2CDL"),
    "sentinel2_lucas": ("dlbench.data.sentinel2_lucas", "Sentinel2LUCAS"),
    "potsdam": ("dlbench.data.potsdam", "Potsdam"),
    "vaihingen": ("dlbench.data.vaihingen", "Vaihingen"),
}
"""Module and class; imported when asked for, since those of maps bring 60 MB of libraries along."""


def build(
    name: str, root: Path | None, size: tuple[int, int] | None = None, **options: Any
) -> DataSet:
    """The data set ``name`` in folder ``root``, its samples of ``size`` (height, width) pixels.

    The folder has the data set's real layout, or is one that was prepared from it. Without a root,
    it is the miniature, which dlbench generates where it is absent.
    Raises `DataError` for an unknown name or option, for an option of another type than its
    annotation, or for a folder that cannot be used.
    """
    from dlbench.data import prepared

    kind = kind_of(name)
    check(name, options, of_kind(kind), "data.options.")
    if root is None:
        from dlbench.data import miniatures, scenes

        root = miniatures.ensure(name, scenes.default_folder())
    try:
        dataset = (
            prepared.open_prepared(kind, root, size, options)
            if prepared.is_prepared(root)
            else kind(root, size, **options)
        )
    except PermissionError as error:
        raise DataError(
            f"cannot read {error.filename or root}: {error.strerror}; have its permissions and "
            "those of the folders above it changed, or give another data.root=..."
        ) from error
    dataset.options = options
    return dataset


def kind_of(name: str) -> type[DataSet]:
    """The class of the data set ``name``. Raises `DataError` for an unknown one."""
    if name not in DATASETS:
        raise DataError(f"unknown data set '{name}'; known: {', '.join(sorted(DATASETS))}")
    module, kind = DATASETS[name]
    found: type[DataSet] = getattr(importlib.import_module(module), kind)
    return found
