"""Small, deterministic scene sets in the real layout of each data set, to learn and test on."""

from __future__ import annotations

import importlib
from pathlib import Path

from dlbench.data.dataset import DataError

MINIATURES: dict[str, tuple[str, str]] = {
    "burned_area": ("dlbench.data.miniatures.burned_area", "make"),
    "granulation": ("dlbench.data.granulation_files", "make_granulation"),
    "potsdam": ("dlbench.data.miniatures.potsdam", "make"),
    "vaihingen": ("dlbench.data.scenes", "make_vaihingen"),
}
"""The module and function, of a new folder and a seed, that make it."""


def make(name: str, folder: Path, seed: int = 0) -> Path:
    """Write the miniature of data set ``name`` to a new ``folder``, whole or not at all."""
    if name not in MINIATURES:
        raise DataError(f"there is no miniature of '{name}'; there are: {', '.join(MINIATURES)}")
    module, function = MINIATURES[name]
    found: Path = getattr(importlib.import_module(module), function)(Path(folder), seed=seed)
    return found
