"""What a data set tells of itself, kept with a run: a network is used where its data are not."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from dlbench.data.dataset import ClassInfo, DataSet


class Facts(BaseModel):
    """`DataSet`'s attributes of these names, ready for JSON."""

    model_config = ConfigDict(frozen=True)

    name: str
    task: str
    bands: tuple[str, ...]
    dtype: str
    """Of the image values, as NumPy names it."""
    value_range: tuple[float, float]
    units: str
    classes: tuple[ClassInfo, ...]
    outputs: tuple[str, ...]
    ground_sampling_distance: float | None
    """Metres a pixel."""
    cadence_s: float | None
    """Seconds between two frames, of sequences."""
    licence: str
    source: str
    read_as: Literal["sentinel2", "landsat", "raster"] | None = None
    """What its scenes are: offsets, scales and clouds of satellites are seen to, other rasters are
    taken as they are. None where the names of the bands must tell."""
    shown: tuple[int, int, int] | None = None
    """Bands to be seen as red, green and blue; None: the first three."""
    resized_to: tuple[int, int] | None = None
    """(height, width) that whole images were brought to; None where they were read as they are."""


def facts(dataset: DataSet) -> Facts:
    """The facts of an open data set."""
    known = {name: getattr(dataset, name, None) for name in Facts.model_fields}
    known["resized_to"] = dataset.size if dataset.resizes else None
    return Facts.model_validate({**known, "dtype": str(dataset.dtype)})
