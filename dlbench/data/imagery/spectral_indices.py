"""Spectral indices of Sentinel-2 bands, in the range of its reflectances."""

from __future__ import annotations

import numpy as np

# Normalised differences (a - b) / (a + b), named as in Tucker 1979 (NDVI), McFeeters 1996 (NDWI),
# Gao 1996 (NDMI), Barnes et al. 2000 (NDRE), Hall et al. 1995 (NDSI), Key & Benson 2006 (NBR).
INDICES = {
    "NDVI": ("B08", "B04"),
    "NDWI": ("B03", "B08"),
    "NDMI": ("B08", "B11"),
    "NDRE": ("B08", "B05"),
    "NDSI": ("B03", "B11"),
    "NBR": ("B08", "B12"),
}
INDEX_SCALE = 5000
"""An index of -1 to 1 is kept as (index + 1) * 5000, the range of a reflectance of 0 to 1."""


def normalized_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(a - b) / (a + b) of uint16 values, scaled by `INDEX_SCALE`; of 0 and 0 it is 0."""
    total = a.astype(np.float64) + b
    index = (a.astype(np.float64) - b) / np.maximum(total, 1)
    return np.rint((index + 1) * INDEX_SCALE).astype(np.uint16)
