"""Sentinel-2 Level-1C products in ESA's SAFE format: folders or zip archives, old and compact.

Facts of the layout: Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), issue 14.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from dlbench.data.archives import UNREADABLE
from dlbench.data.dataset import DataError
from dlbench.data.folders import files_below
from dlbench.data.grid import Grid
from dlbench.data.imagery.bands import Bands, open_bands
from dlbench.data.imagery.clouds import CloudRaster, Clouds, read_gml

# In the order of bandId.
RESOLUTION = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10,
    "B8A": 20, "B09": 60, "B10": 60, "B11": 20, "B12": 20,
}  # fmt: skip
"""Metres a pixel."""
NO_DATA, SATURATED = 0, 65535
QUANTIFICATION = 10000
"""Digital numbers of a reflectance of 1."""
OFFSET_SINCE = 4.0
"""The processing baseline from which RADIO_ADD_OFFSET is to be added to digital numbers."""
CLASSI_CLOUDS = (1, 2)
"""Bands of MSK_CLASSI_B00: opaque clouds, cirrus; the third is snow."""
CLASSI_RESOLUTION = 60

# The second form of each is that of products before December 2016.
PRODUCT = r"MTD_MSIL\w\w\.xml|S2\w_OPER_MTD_SAFL\w\w_\w+\.xml"
TILE = r"MTD_TL\.xml|S2\w_OPER_MTD_L1C_TL_\w+\.xml"
IMAGE = r"IMG_DATA/\w+_(B\d\d|B8A)\.jp2"
CLASSI = r"QI_DATA/(\w+_)?MSK_CLASSI_B00\w*\.jp2"
GML = r"QI_DATA/(\w+_)?MSK_CLOUDS_\w*B00\w*\.gml"

_LARGEST_XML = 64 << 20


@dataclass(frozen=True)
class Granule:
    """One tile of one overpass."""

    name: str
    """Tile and start of sensing: T32TNM_20170226T102458."""
    file: Path
    bands: dict[str, Bands]
    offsets: dict[str, int]
    """What is added to digital numbers of a band before `QUANTIFICATION` divides them."""
    clouds: Clouds | None


@dataclass(frozen=True)
class _Product:
    """The files of a product, in a folder or in place in an archive."""

    container: Path
    prefix: str
    sizes: dict[str, int]
    """Bytes of each file, by its path below ``prefix``."""

    def path(self, name: str) -> Path:
        if self.container.is_file():
            # Braces: the archive need not end in .zip.
            return Path(f"/vsizip/{{{self.container}}}/{self.prefix}{name}")
        return self.container / self.prefix / name

    def match(self, pattern: str, below: str = "") -> list[tuple[str, re.Match[str]]]:
        """Files whose path below a folder matches."""
        names = (name for name in sorted(self.sizes) if name.startswith(below))
        found = ((name, re.fullmatch(pattern, name.removeprefix(below))) for name in names)
        return [(name, match) for name, match in found if match]

    def xml(self, name: str) -> ElementTree.Element:
        file = self.path(name)
        if self.sizes[name] > _LARGEST_XML:
            raise DataError(f"{file} is {self.sizes[name]} bytes, metadata have below 64 MiB")
        try:
            if self.container.is_file():
                with zipfile.ZipFile(self.container) as archive:
                    return ElementTree.fromstring(archive.read(self.prefix + name))
            return ElementTree.fromstring(file.read_bytes())
        except (ElementTree.ParseError, LookupError, *UNREADABLE) as error:
            reason = str(error) or type(error).__name__
            raise DataError(f"cannot read {file}: {reason}; fetch the product again") from error


def is_safe(path: Path) -> bool:
    """Whether a path is a product, the folder of a granule in one, or an archive that should hold
    one."""
    if path.is_dir():
        return _is_product(path) or _granule_at(path) is not None
    return path.suffix.lower() == ".zip"


def _is_product(folder: Path) -> bool:
    inside = any(re.fullmatch(PRODUCT, entry.name) for entry in folder.iterdir())
    return inside or folder.suffix == ".SAFE"


def _granule_at(path: Path) -> Path | None:
    """The folder of a granule as it lies in its product: ``path`` itself, or what it links to."""
    for place in map(Path, (os.path.abspath(path), os.path.realpath(path))):
        if place.parent.name == "GRANULE" and _is_product(place.parent.parent):
            return place
    return None


def read_safe(path: Path, bands: Iterable[str], mask_clouds: bool) -> list[Granule]:
    """The granules of a product, or of all products of an archive, or the one whose folder is
    given, headers checked.

    Raises `DataError` for damaged metadata and archives, and for bands that are missing or empty.
    """
    only = None
    if path.is_dir() and not _is_product(path) and (granule := _granule_at(path)) is not None:
        path, only = granule.parent.parent, granule.name
    sizes = _zipped(path) if path.is_file() else _below(path)
    products = [name for name in sizes if re.fullmatch(PRODUCT, PurePosixPath(name).name)]
    if not products:
        raise DataError(
            f"{path} holds no product: MTD_MSIL1C.xml or S2*_OPER_MTD_SAFL1C_*.xml is looked for; "
            "fetch it again"
        )
    granules: list[Granule] = []
    for name in sorted(products):
        prefix = name.removesuffix(PurePosixPath(name).name)
        inside = {n.removeprefix(prefix): s for n, s in sizes.items() if n.startswith(prefix)}
        product = _Product(path, prefix, inside)
        granules += _granules(product, name.removeprefix(prefix), tuple(bands), mask_clouds, only)
    return granules


def _below(folder: Path) -> dict[str, int]:
    return {file.relative_to(folder).as_posix(): stat.st_size for file, stat in files_below(folder)}


def _zipped(path: Path) -> dict[str, int]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except UNREADABLE as error:
        raise DataError(f"{path} is no readable zip archive ({error}); fetch it again") from error
    for member in members:
        name = member.filename
        if ".." in PurePosixPath(name).parts or re.match(r"[/\\]|\w:", name) or "\\" in name:
            raise DataError(
                f"{path} holds a file '{name}' that points out of the archive, which no product "
                "does; fetch it again from https://dataspace.copernicus.eu"
            )
    return {member.filename: member.file_size for member in members}


def _granules(
    product: _Product, name: str, bands: tuple[str, ...], mask_clouds: bool, only: str | None
) -> list[Granule]:
    """All granules of a product, or that of the folder ``only``."""
    offsets = _offsets(product.xml(name), product.path(name))
    folders = sorted({n.split("/")[1] for n in product.sizes if re.match(r"GRANULE/[^/]+/", n)})
    if not folders:
        raise DataError(f"{product.path('GRANULE')} holds no granule; fetch the product again")
    granules = []
    for folder in folders if only is None else [only]:
        below = f"GRANULE/{folder}/"
        tile_files = product.match(TILE, below)
        if not tile_files:
            raise DataError(f"{product.path(below)} has no MTD_TL.xml; fetch the product again")
        tile, tile_file = product.xml(tile_files[0][0]), product.path(tile_files[0][0])
        images = {match[1]: name for name, match in product.match(IMAGE, below)}
        missing = [band for band in bands if band not in images]
        if missing:
            raise DataError(
                f"{product.path(below + 'IMG_DATA')} has no band {', '.join(missing)}; it holds "
                f"{', '.join(images) or 'none'}; fetch the product again, or choose other bands"
            )
        empty = [images[band] for band in bands if product.sizes[images[band]] == 0]
        if empty:
            raise DataError(f"{product.path(empty[0])} is empty (0 bytes); fetch it again")
        opened = {
            band: open_bands(
                [product.path(images[band])],
                [1],
                _tile_grid(tile, tile_file, RESOLUTION[band]),
                between=(NO_DATA, SATURATED),
            )
            for band in bands
        }
        place = re.search(r"T\d\d[A-Z]{3}", folder)
        sensed = re.sub(r"[-:]|\..*", "", _text(tile, "SENSING_TIME", tile_file))
        clouds = _clouds(product, below, tile, tile_file) if mask_clouds else None
        where = product.path(below.rstrip("/"))
        granules.append(
            Granule(f"{place[0] if place else folder}_{sensed}", where, opened, offsets, clouds)
        )
    return granules


def _offsets(root: ElementTree.Element, file: Path) -> dict[str, int]:
    level = _text(root, "PROCESSING_LEVEL", file)
    if level != "Level-1C":
        raise DataError(f"{file} is of a {level} product; only Level-1C is read")
    baseline = _number(_text(root, "PROCESSING_BASELINE", file), "PROCESSING_BASELINE", file)
    # Level 1C has one; level 2A, which is refused above, several of other names.
    quantification = _text(root, "QUANTIFICATION_VALUE", file)
    if _number(quantification, "QUANTIFICATION_VALUE", file) != QUANTIFICATION:
        raise DataError(
            f"{file} says QUANTIFICATION_VALUE {quantification}, expected {QUANTIFICATION}"
        )
    found = {e.get("band_id"): e.text or "" for e in root.iter("RADIO_ADD_OFFSET")}
    if not found and baseline < OFFSET_SINCE:
        return dict.fromkeys(RESOLUTION, 0)
    offsets = {}
    for number, band in enumerate(RESOLUTION):
        text = found.get(str(number))
        if text is None:
            raise DataError(
                f"{file} of baseline {baseline:05.2f} has no RADIO_ADD_OFFSET for band_id {number} "
                f"({band}), which baselines from 04.00 have; fetch the product again"
            )
        offsets[band] = round(_number(text, "RADIO_ADD_OFFSET", file))
    return offsets


def _tile_grid(tile: ElementTree.Element, file: Path, resolution: int) -> Grid:
    # JP2 files do not all hold their place; the metadata do.
    code = _text(tile, "HORIZONTAL_CS_CODE", file)
    try:
        crs = CRS.from_string(code)
    except CRSError as error:
        raise DataError(f"{file} says HORIZONTAL_CS_CODE '{code}', which is no CRS") from error
    numbers = {}
    for parent, children in (("Size", ("NROWS", "NCOLS")), ("Geoposition", ("ULX", "ULY"))):
        element = tile.find(f".//{parent}[@resolution='{resolution}']")
        if element is None:
            raise DataError(f"{file} has no {parent} of resolution {resolution}; fetch it again")
        for child in children:
            numbers[child] = _number(_text(element, child, file), child, file)
    transform = Affine(resolution, 0, numbers["ULX"], 0, -resolution, numbers["ULY"])
    return Grid(crs, transform, int(numbers["NROWS"]), int(numbers["NCOLS"]))


def _clouds(product: _Product, below: str, tile: ElementTree.Element, tile_file: Path) -> Clouds:
    if found := product.match(CLASSI, below):
        grid = _tile_grid(tile, tile_file, CLASSI_RESOLUTION)
        return CloudRaster(open_bands([product.path(found[0][0])], CLASSI_CLOUDS, grid))
    if found := product.match(GML, below):
        crs = _tile_grid(tile, tile_file, CLASSI_RESOLUTION).crs
        return read_gml(product.xml(found[0][0]), product.path(found[0][0]), crs)
    raise DataError(
        f"{product.path(below + 'QI_DATA')} has no cloud mask MSK_CLASSI_B00.jp2 or "
        "MSK_CLOUDS_B00.gml; fetch the product again, or read with mask_clouds=false"
    )


def _text(root: ElementTree.Element, tag: str, file: Path) -> str:
    element = next(root.iter(tag), None)
    if element is None or not (element.text or "").strip():
        raise DataError(f"{file} has no {tag}; it is damaged, fetch the product again")
    return (element.text or "").strip()


def _number(text: str, tag: str, file: Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{file} says {tag} '{text}', expected a number; fetch it again") from None
