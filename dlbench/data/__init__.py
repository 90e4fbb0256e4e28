"""Data sets by name; importing this loads no TensorFlow (that is `dlbench.data.pipeline`)."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from dlbench.data import prepared
from dlbench.data.camvid import CamVid
from dlbench.data.dataset import IGNORE, ClassInfo, DataError, DataSet
from dlbench.data.granulation import Granulation
from dlbench.data.vaihingen import Vaihingen
from dlbench.data.windows import WindowedDataSet

__all__ = ["DATASETS", "IGNORE", "ClassInfo", "DataError", "DataSet", "WindowedDataSet", "build"]

DATASETS: dict[str, type[DataSet]] = {
    "camvid": CamVid,
    "granulation": Granulation,
    "vaihingen": Vaihingen,
}


def build(
    name: str, root: Path | None, size: tuple[int, int] | None = None, **options: Any
) -> DataSet:
    """The data set ``name`` in folder ``root``, its samples of ``size`` (height, width) pixels.

    The folder has the data set's real layout, or is one that was prepared from it. Without a root,
    granulation and vaihingen are what dlbench generates itself.
    Raises `DataError` for an unknown name or option, or for a folder that cannot be used.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set '{name}'; known: {', '.join(sorted(DATASETS))}")
    kind = DATASETS[name]
    known = list(inspect.signature(kind).parameters)[2:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise DataError(
            f"{name} has no option {', '.join(unknown)}; its options: {', '.join(known) or 'none'}"
        )
    if root is None:
        root = _generated(kind)
    dataset = (
        prepared.open_prepared(kind, root, size, options)
        if prepared.is_prepared(root)
        else kind(root, size, **options)
    )
    dataset.options = options
    return dataset


def _generated(kind: type[DataSet]) -> Path:
    """The folder of the samples that dlbench makes itself, made if it is absent."""
    from dlbench.data import granulation_files, scenes

    if kind is Vaihingen:
        return scenes.ensure_vaihingen_miniature(scenes.default_folder())
    if kind is Granulation:
        return granulation_files.ensure_granulation_miniature(scenes.default_folder())
    raise DataError(
        f"{kind.name} needs its folder: data.root=/path/to/{kind.name} (from {kind.source}); "
        "only granulation and vaihingen have generated samples to start with"
    )
