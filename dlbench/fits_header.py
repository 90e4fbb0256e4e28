"""FITS headers: from that of images to that of the velocities in them, world coordinates included.

Images have x and y on axes 1 and 2, velocities on 2 and 3 behind the component. The coordinates
move by renaming cards (Greisen & Calabretta 2002, A&A 395, 1061): units, comments and alternate
descriptions stay as they are. Whether the result means the same is then asked of wcslib.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from dlbench.data.granulation import KM_PER_ARCSEC, component_names

BLOCK = 2880
"""Bytes: a FITS file is made of these."""
MOST_AXES = 999
# Name, first number, second number, alternate description.
_CARD = re.compile(
    r"(?:(CTYPE|CUNIT|CRVAL|CRPIX|CDELT|CNAME|CROTA|CRDER|CSYER|CZPHS|CPERI|CRDATE)([1-9]\d?)"
    r"|(PC|CD|PV|PS)([1-9]\d?)_(\d+))([A-Z]?)"
)
# Coordinates that belong to axes 1 and 2 by definition (SIP), to tables that are not taken along
# (distortion look-ups), or to the number of axes.
_BOUND = re.compile(
    r"(?:WCSAXES|(?:A|B|AP|BP)_(?:ORDER|DMAX|\d+_\d+)"
    r"|(?:CPDIS|CQDIS|CPERR|CQERR|D2IM\w*|DP|DQ|PC0|CD0)\d+\w*)[A-Z]?(?:\..*)?"
)
# Of the images' values, or of how they were stored.
_OF_THE_DATA = (
    *("BUNIT", "BTYPE", "DATAMIN", "DATAMAX", "CHECKSUM", "DATASUM", "EXTNAME", "EXTVER"),
    *("EXTLEVEL", "INHERIT", "BLANK", "ZBLANK", "ZSCALE", "ZZERO"),
)


def velocity_header(
    images: fits.Header, shape: tuple[int, int, int, int], border: int = 0
) -> tuple[fits.Header, bool]:
    """The header of velocities ``(pair, ny, nx, component)`` of images with the header ``images``,
    of which ``border`` pixels are cut off each side.

    All cards are kept that still hold. Also returns whether the world coordinates could be moved;
    where they could not, their cards are named ``INPUT CTYPE1`` and so on, which nothing reads.
    """
    for moving in (True, False):
        header = _structure(shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of cards that are not quite FITS
            for keyword, value, comment in _kept(images):
                if moving:
                    keyword = _moved(keyword, images.get("NAXIS", 3))
                elif _CARD.fullmatch(keyword) or _BOUND.fullmatch(keyword):
                    keyword = f"HIERARCH INPUT {keyword}"
                header.append((keyword, value, comment), end=True)
        _add_axes(header, images if moving else fits.Header(), border)
        if moving and _same_world(images, header, border):
            return header, True
    return header, not any(_CARD.fullmatch(keyword) for keyword in images)


def require_axes(path: str) -> None:
    """Raise `OSError` for an HDU of more axes than the standard allows: astropy looks for each,
    which takes hours where a damaged header tells of billions."""
    with Path(path).open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else Path(path).open("rb") as file:
        while True:
            try:
                header = fits.Header.fromfile(file)
            except (EOFError, OSError, ValueError):  # astropy tells what is wrong, or ignores it
                return
            axes = header.get("NAXIS", 0)
            if not isinstance(axes, int) or not 0 <= axes <= MOST_AXES:
                raise OSError(f"NAXIS is {axes}, allowed are 0 to {MOST_AXES}")
            numbers = [header.get(name, default) for name, default in (
                ("BITPIX", 8), ("PCOUNT", 0), ("GCOUNT", 1),
                *((f"NAXIS{n}", 0) for n in range(1, axes + 1)),
            )]  # fmt: skip
            if not all(isinstance(number, int) for number in numbers):
                return
            if min(numbers[1:]) < 0:  # astropy would go backwards in the file, and round in circles
                raise OSError(f"an axis, PCOUNT or GCOUNT is negative: {numbers[1:]}")
            bits, before, groups, *lengths = abs(numbers[0]), *numbers[1:]
            size = bits // 8 * groups * (before + math.prod(lengths)) if lengths else 0
            file.seek(size + -size % BLOCK, os.SEEK_CUR)


def pixel_km(images: fits.Header) -> float | None:
    """Kilometres on the Sun that a pixel is wide; None where the header does not tell."""
    try:
        scale = proj_plane_pixel_scales(_wcs(images))[0] * _wcs(images).wcs.cunit[0]
        if scale.unit.is_equivalent(units.km):
            return float(scale.to_value(units.km))
        return float(scale.to_value(units.arcsec)) * KM_PER_ARCSEC
    except Exception:  # whatever a header holds: it does not tell
        return None


def cadence_s(images: fits.Header) -> float | None:
    """Seconds from frame to frame; None where the header does not tell."""
    value = images.get("CADENCE")
    if value is None and str(images.get("CUNIT3", "")).strip() in ("s", "sec"):
        value = images.get("CDELT3")
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _structure(shape: tuple[int, int, int, int]) -> fits.Header:
    header = fits.Header([("SIMPLE", True, "conforms to FITS standard"), ("BITPIX", -32)])
    header["NAXIS"] = 4
    meanings = ("component", "x", "y", "pair of frames")
    for axis, (length, meaning) in enumerate(zip(shape[::-1], meanings, strict=True), start=1):
        header[f"NAXIS{axis}"] = (length, meaning)
    header["BUNIT"] = "km/s"
    for number, name in enumerate(component_names(shape[3]), start=1):
        header[f"COMP{number}"] = (name, f"where axis 1, the component, is {number}")
    return header


def _kept(images: fits.Header) -> Iterator[tuple[str, Any, str]]:
    for card in images.copy(strip=True).cards:
        card.verify("silentfix+ignore")
        if isinstance(card.value, float) and not math.isfinite(card.value):
            continue  # 1E999 is read, but may not be written
        if card.keyword not in _OF_THE_DATA and (card.keyword or card.value):
            yield card.keyword, card.value, card.comment


def _axis(number: int, axes: int) -> int:
    """Where an axis of an image of so many ``axes`` goes.

    Single images have no axis of time: what their coordinates have beyond (a wavelength) goes
    behind that of the pairs.
    """
    return number + 1 if number <= 2 or axes > 2 else number + 2


def _moved(keyword: str, axes: int) -> str:
    match = _CARD.fullmatch(keyword)
    if match is None:
        return keyword
    name, number, matrix, first, second, alternate = match.groups()
    if name:
        return f"{name}{_axis(int(number), axes)}{alternate}"
    # The second number of PV and PS counts parameters.
    other = _axis(int(second), axes) if matrix in ("PC", "CD") else int(second)
    return f"{matrix}{_axis(int(first), axes)}_{other}{alternate}"


def _add_axes(header: fits.Header, images: fits.Header, border: int) -> None:
    """The component's axis, for single images that of the pairs too, in all descriptions."""
    found = [match for keyword in images if (match := _CARD.fullmatch(keyword))]
    added = (1, 4) if images.get("NAXIS") == 2 else (1,)
    for alternate in sorted({"", *(match[6] for match in found)}):
        if f"WCSAXES{alternate}" in images:
            axes = _axis(images[f"WCSAXES{alternate}"], images["NAXIS"])
            header[f"WCSAXES{alternate}"] = max(4, axes)
        for axis in added:
            header[f"CTYPE{axis}{alternate}"] = "COMPONENT" if axis == 1 else ""
            for name in ("CRPIX", "CDELT", "CRVAL"):
                header[f"{name}{axis}{alternate}"] = 1.0
            # Where a header has CDi_j, those that it lacks are zero.
            if any(match[3] == "CD" and match[6] == alternate for match in found):
                header[f"CD{axis}_{axis}{alternate}"] = 1.0
        for axis, shift in _shifts(images, alternate, border).items():
            keyword = f"CRPIX{axis}{alternate}"
            header[keyword] = header.get(keyword, 0.0) - shift


def _shifts(images: fits.Header, alternate: str, border: int) -> dict[int, float]:
    """How far pixels move down the axes of the velocities: what is cut off, and half a frame."""
    shifts = dict.fromkeys((2, 3), float(border)) if border else {}
    described = any(f"{name}3{alternate}" in images for name in ("CTYPE", "CRPIX", "CDELT"))
    return {**shifts, 4: 0.5} if images.get("NAXIS") == 3 and described else shifts


def _same_world(images: fits.Header, header: fits.Header, border: int) -> bool:
    """Whether pixels mean the same in both, in each description."""
    axes = images.get("NAXIS", 3)
    for alternate in sorted({"", *(m[6] for k in images if (m := _CARD.fullmatch(k)))}):
        try:
            before, after = _wcs(images, alternate or " "), _wcs(header, alternate or " ")
            axis = [_axis(i, axes) - 1 for i in range(1, before.naxis + 1)]
            pixels = np.ones((4, before.naxis))
            pixels[:, :2] += np.random.default_rng(0).uniform(0, 1000, (4, 2))
            pixels[:, 2:3] += np.arange(4)[:, None]
            moved = np.ones((4, after.naxis))
            moved[:, axis] = pixels
            for shifted, shift in _shifts(images, alternate, border).items():
                moved[:, shifted - 1] -= shift
            expected = before.all_pix2world(pixels, 1)
            found = after.all_pix2world(moved, 1)[:, axis]
        except Exception:  # what wcslib refuses cannot be moved, and it refuses in many ways
            return False
        rounding = 1e-12 * np.nan_to_num(np.abs(expected)).max(axis=0)
        if not np.allclose(found, expected, rtol=0.0, atol=rounding, equal_nan=True):
            return False
    return True


def _wcs(header: fits.Header, key: str = " ") -> WCS:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WCS(header, key=key)
