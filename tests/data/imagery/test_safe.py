from __future__ import annotations

import re
import shutil
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.features import rasterize

from dlbench.data.dataset import DataError
from dlbench.data.imagery.sentinel2 import Sentinel2, open_sentinel2
from dlbench.data.imagery.sentinel2_files import BANDS
from dlbench.data.miniatures import parcels
from dlbench.data.miniatures.sentinel2 import make, product_name

DAY = date(2022, 6, 10)
SIZE = 60
WEST, NORTH = parcels.FERRARA.origin
GML = """<?xml version="1.0" encoding="UTF-8"?>
<eop:Mask xmlns:eop="http://www.opengis.net/eop/2.0" xmlns:gml="http://www.opengis.net/gml/3.2">
<gml:boundedBy><gml:Envelope srsName="urn:ogc:def:crs:EPSG:8.7:{epsg}"/></gml:boundedBy>
<eop:maskMembers>{features}</eop:maskMembers></eop:Mask>"""
FEATURE = """<eop:MaskFeature><eop:maskType>{kind}</eop:maskType><eop:extentOf><gml:Polygon>
<gml:exterior><gml:LinearRing><gml:posList srsDimension="2">{outer}</gml:posList></gml:LinearRing>
</gml:exterior><gml:interior><gml:LinearRing><gml:posList srsDimension="2">{inner}</gml:posList>
</gml:LinearRing></gml:interior></gml:Polygon></eop:extentOf></eop:MaskFeature>"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One date of 60 x 60 pixels. Read only."""
    return make(tmp_path_factory.mktemp("sentinel2") / "scenes", size=SIZE, dates=[DAY])


@pytest.fixture
def product(made: Path, tmp_path: Path) -> Path:
    """A SAFE folder that a test may damage."""
    name = product_name(DAY)
    return Path(shutil.copytree(made / "SAFE" / name, tmp_path / name))


def _open(path: Path, *bands: str, mask_clouds: bool = True) -> Sentinel2:
    (scene,) = open_sentinel2(path, bands or ("B02", "B05"), mask_clouds=mask_clouds)
    return scene


def _whole(scene: Sentinel2) -> tuple[np.ndarray, np.ndarray]:
    return scene.read(0, 0, scene.grid.height, scene.grid.width)


def _file(product: Path, pattern: str) -> Path:
    (found,) = product.rglob(pattern)
    return found


def _edit(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text())
    assert count
    file.write_text(text)


def _raw(product: Path, band: str) -> np.ndarray:
    with rasterio.open(_file(product, f"*_{band}.jp2")) as file:
        return file.read(1).astype(int)


def test_offsets_masks_and_no_data(made: Path) -> None:
    product = made / "SAFE" / product_name(DAY)
    scene = _open(product, "B02", "B08")
    assert (scene.name, scene.bands) == ("T32TQQ_20220610T101559", ("B02", "B08"))
    assert scene.grid == parcels.grid(SIZE)
    image, valid = _whole(scene)
    numbers = np.stack([_raw(product, band) for band in scene.bands], axis=-1)
    known = (numbers > 0).all(axis=-1)
    with rasterio.open(_file(product, "MSK_CLASSI_B00.jp2")) as file:
        clouds = file.read().any(axis=0).repeat(6, axis=0).repeat(6, axis=1)
    assert 0 < (~known).sum() < known.size / 5
    assert 0 < clouds.sum() < clouds.size / 2
    np.testing.assert_array_equal(valid, known & ~clouds)
    np.testing.assert_array_equal(image[known], numbers[known] - 1000)
    # What Earth Engine has harmonised is the same.
    (export,) = open_sentinel2(made / "export", scene.bands, harmonized=True)
    np.testing.assert_array_equal(image[valid], _whole(export)[0][valid])
    unmasked = _whole(_open(product, "B02", "B08", mask_clouds=False))[1]
    np.testing.assert_array_equal(unmasked, known)


def test_an_offset_of_a_band_and_what_it_makes_negative(product: Path) -> None:
    _edit(_file(product, "MTD_MSIL1C.xml"), '"3">-1000<', '"3">-4000<')
    image, valid = _whole(_open(product, "B03", "B04", mask_clouds=False))
    for place, offset in ((0, 1000), (1, 4000)):
        expected = np.maximum(_raw(product, ("B03", "B04")[place]) - offset, 0)
        np.testing.assert_array_equal(image[valid][:, place], expected[valid])
    assert (image[valid][:, 1] == 0).any()
    # Band identifiers count B8A before B09.
    _edit(_file(product, "MTD_MSIL1C.xml"), '"8">-1000<', '"8">-500<')
    image, valid = _whole(_open(product, "B8A", mask_clouds=False))
    np.testing.assert_array_equal(image[valid][:, 0], _raw(product, "B8A")[valid] - 500)


def test_baselines(product: Path) -> None:
    metadata = _file(product, "MTD_MSIL1C.xml")
    whole = metadata.read_text()
    _edit(metadata, "(?s)<Radiometric.*_List>", "")
    with pytest.raises(DataError, match="baseline 04.00 has no RADIO_ADD_OFFSET for band_id 0"):
        _open(product)
    _edit(metadata, "04.00", "02.09")
    image, valid = _whole(_open(product, "B02"))
    np.testing.assert_array_equal(image[valid][:, 0], _raw(product, "B02")[valid])
    for old, new, message in (
        ("Level-1C<", "Level-2A<", "is of a Level-2A product; only Level-1C"),
        (">10000<", ">1000<", "says QUANTIFICATION_VALUE 1000, expected 10000"),
        (">04.00<", ">four<", "says PROCESSING_BASELINE 'four', expected a number"),
        ("<PROCESSING_BASELINE>04.00</PROCESSING_BASELINE>", "", "has no PROCESSING_BASELINE"),
        ("</Product_Info>", "", "cannot read .*MTD_MSIL1C.xml: mismatched tag"),
    ):
        metadata.write_text(whole.replace(old, new))
        with pytest.raises(DataError, match=message):
            _open(product)
    metadata.unlink()
    with pytest.raises(DataError, match=r"\.SAFE holds no product: MTD_MSIL1C.xml"):
        _open(product)


def _zip(product: Path, archive: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as file:
        for one in sorted(product.rglob("*")):
            file.write(one, one.relative_to(product.parent))
    return archive


def test_parts_of_a_product_may_be_links(product: Path, tmp_path: Path) -> None:
    """As where pixels lie on a larger disk."""
    plain = _whole(_open(product))
    (granule,) = (product / "GRANULE").iterdir()
    for number, folder in enumerate((granule / "IMG_DATA", product / "GRANULE")):
        elsewhere = tmp_path / f"disk{number}"
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
        for linked, before in zip(_whole(_open(product)), plain, strict=True):
            np.testing.assert_array_equal(linked, before)
    (tmp_path / "disk1/back").symlink_to(product)
    _open(product)


def test_an_archive_is_read_in_place(product: Path, tmp_path: Path) -> None:
    archive = _zip(product, tmp_path / "odd {name} [1].zip")
    for packed, plain in zip(_whole(_open(archive)), _whole(_open(product)), strict=True):
        np.testing.assert_array_equal(packed, plain)
    assert not [entry for entry in tmp_path.iterdir() if entry not in (archive, product)]
    with pytest.raises(DataError, match="holds the scene T32TQQ_20220610T101559 twice"):
        open_sentinel2(tmp_path)
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(DataError, match="is no readable zip archive"):
        _open(archive)


def test_damage_of_an_archive_is_told_wherever_it_is(product: Path, tmp_path: Path) -> None:
    """Each byte of a member in turn, its compressed ones too, and each of its entry at the end."""
    shutil.rmtree(product / "GRANULE")
    archive = _zip(product, tmp_path / "a.zip", zipfile.ZIP_DEFLATED)
    whole = bytearray(archive.read_bytes())
    with pytest.raises(DataError, match="GRANULE holds no granule"):
        _open(archive)
    for place in range(len(whole)):
        for bit in (1, 1 << 4, 1 << 7):
            damaged = whole.copy()
            damaged[place] ^= bit
            archive.write_bytes(damaged)
            with pytest.raises(DataError, match=r"a\.zip"):
                _open(archive)


@pytest.mark.parametrize("name", ["../../x.jp2", "/etc/x.jp2", "a/../../x", "C:/x", "..\\x"])
def test_an_archive_that_points_out_of_itself(name: str, product: Path, tmp_path: Path) -> None:
    archive = _zip(product, tmp_path / "a.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, "x")
    with pytest.raises(DataError, match=f"holds a file '{re.escape(name)}' that points out"):
        _open(archive)


def test_products_of_many_granules_with_long_names(
    product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "S2A_OPER_PRD_MSIL1C_PDMC_20160605T2012_R065_V20160605T101601.SAFE"
    for tile in ("T32TQQ", "T32TQR"):
        (source,) = (product / "GRANULE").iterdir()
        stem = f"S2A_OPER_MSI_L1C_TL_SGS__20160605T153000_A004979_{tile}"
        granule = Path(shutil.copytree(source, old / "GRANULE" / f"{stem}_N02.02"))
        for file in (granule / "IMG_DATA").iterdir():
            file.rename(file.with_name(f"{stem}_{file.stem[-3:]}.jp2"))
        (granule / "MTD_TL.xml").rename(granule / f"{stem.replace('MSI', 'MTD', 1)}.xml")
        (granule / "QI_DATA" / "MSK_CLASSI_B00.jp2").unlink()
        gml = "S2A_OPER_MSK_CLOUDS_SGS__20160605T153000_A004979_T32TQQ_B00_MSIL1C.gml"
        (granule / "QI_DATA" / gml).write_text(GML.format(epsg=32632, features=""))
    text = (product / "MTD_MSIL1C.xml").read_text().replace("04.00", "02.02")
    text = re.sub("(?s)<Radiometric.*_List>", "", text)
    (old / "S2A_OPER_MTD_SAFL1C_PDMC_20160605T2012_R065.xml").write_text(text)
    scenes = open_sentinel2(old, BANDS)
    assert [scene.name[:6] for scene in scenes] == ["T32TQQ", "T32TQR"]
    image, valid = _whole(scenes[1])
    expected = _raw(product, "B08")
    np.testing.assert_array_equal(image[valid][:, 7], expected[valid])
    # Its mask holds no cloud.
    assert (valid == _whole(open_sentinel2(old, BANDS, mask_clouds=False)[1])[1]).all()
    # One of them by its folder, wherever the command is given, or by a link, beside another one.
    first, second = sorted((old / "GRANULE").iterdir())
    (tmp_path / "linked").mkdir()
    for granule in (first, second):
        (tmp_path / "linked" / granule.name[-13:]).symlink_to(granule)
    monkeypatch.chdir(old / "GRANULE")
    for path in (second, Path(second.name), tmp_path / "linked/T32TQR_N02.02"):
        scene = _open(path, *BANDS)
        assert scene.name == scenes[1].name
        for one, other in zip(_whole(scene), (image, valid), strict=True):
            np.testing.assert_array_equal(one, other)
    both = open_sentinel2(tmp_path / "linked", BANDS)
    assert [scene.name for scene in both] == [scene.name for scene in scenes]
    (second / f"{second.name.replace('MSI', 'MTD', 1)[:-7]}.xml").unlink()
    _open(first)
    with pytest.raises(DataError, match=r"T32TQR_N02.02/? has no MTD_TL\.xml"):
        _open(second)


def test_clouds_of_polygons(product: Path) -> None:
    mask = _file(product, "MSK_CLASSI_B00.jp2")
    mask.unlink()
    with pytest.raises(DataError, match="has no cloud mask .* mask_clouds=false"):
        _open(product)

    def square(west: float, north: float, side: float) -> list[tuple[float, float]]:
        corners = ((0, 0), (side, 0), (side, -side), (0, -side), (0, 0))
        return [(WEST + west + x, NORTH - north + y) for x, y in corners]

    def feature(
        kind: str, outer: list[tuple[float, float]], inner: list[tuple[float, float]]
    ) -> str:
        rings = (" ".join(f"{x} {y}" for x, y in ring) for ring in (outer, inner))
        return FEATURE.format(kind=kind, outer=next(rings), inner=next(rings))

    shapes = [
        (square(60, 240, 120), square(90, 270, 30)),
        (square(300, 240, 60), square(320, 260, 20)),
    ]
    text = feature("OPAQUE", *shapes[0]) + feature("CIRRUS", *shapes[1])
    text += feature("SNOW", square(0, 500, 60), square(10, 510, 20))
    gml = mask.with_suffix(".gml").with_name("MSK_CLOUDS_B00.gml")
    gml.write_text(GML.format(epsg=32632, features=text))
    scene = _open(product, "B02")
    known = _whole(_open(product, "B02", mask_clouds=False))[1]
    _, valid = _whole(scene)
    transform = Affine(10, 0, WEST, 0, -10, NORTH)
    expected = np.zeros((SIZE, SIZE), bool)
    expected[24:36, 6:18] = True
    expected[27:30, 9:12] = False
    expected[24:30, 30:36] = True
    expected[26:28, 32:34] = False
    np.testing.assert_array_equal(valid, known & ~expected)
    # A second opinion, of GDAL on GeoJSON.
    rings = [{"type": "Polygon", "coordinates": [outer, inner]} for outer, inner in shapes]
    burned = rasterize(rings, (SIZE, SIZE), transform=transform)
    np.testing.assert_array_equal(expected, burned == 1)
    np.testing.assert_array_equal(scene.read(20, 5, 12, 30)[1], valid[20:32, 5:35])
    for epsg, features, message in (
        (32633, text, "MSK_CLOUDS_B00.gml is in urn:.*32633, its scene in EPSG:32632"),
        (32632, text.replace("</gml:Polygon>", "", 1), "cannot read .*gml: mismatched tag"),
        (32632, text.replace("gml:exterior", "gml:outside"), "of 0 outer rings, expected 1"),
        (32632, re.sub(r">\d[\d. ]+<", ">1 2 3<", text), "has a posList '1 2 3' that is no ring"),
    ):
        gml.write_text(GML.format(epsg=epsg, features=features))
        with pytest.raises(DataError, match=message):
            _open(product)


def test_the_place_comes_from_the_metadata(product: Path) -> None:
    image = _file(product, "*_B02.jp2")
    values = _raw(product, "B02").astype(np.uint16)
    expected = _whole(_open(product, "B02", mask_clouds=False))[0]

    def rewrite(numbers: np.ndarray, **place: object) -> None:
        image.unlink()
        with rasterio.open(
            image, "w", driver="JP2OpenJPEG", height=numbers.shape[0], width=numbers.shape[1],
            count=1, dtype=np.uint16, QUALITY=100, REVERSIBLE="YES", **place,
        ) as file:  # fmt: skip
            file.write(numbers, 1)

    rewrite(values)
    scene = _open(product, "B02", mask_clouds=False)
    assert scene.grid == parcels.grid(SIZE)
    np.testing.assert_array_equal(_whole(scene)[0], expected)
    rewrite(values[:50])
    with pytest.raises(DataError, match=r"B02.jp2 is 50 x 60 pixels .* metadata say 60 x 60"):
        _open(product)
    rewrite(values, crs="EPSG:32633", transform=parcels.grid(SIZE).transform)
    with pytest.raises(DataError, match=r"B02.jp2 is .* EPSG:32633, its metadata say .*32632"):
        _open(product)


def test_damaged_products_are_named(product: Path, tmp_path: Path) -> None:
    image = _file(product, "*_B05.jp2")
    whole = image.read_bytes()
    image.write_bytes(whole[:-300])
    with pytest.raises(DataError, match=r"cannot read .*_B05\.jp2"):
        _whole(_open(product))
    image.write_bytes(b"")
    for path in (product, _zip(product, tmp_path / "a.zip")):
        with pytest.raises(DataError, match=r"T32TQQ_20220610T101601_B05\.jp2 is empty \(0 by"):
            _open(path)
    image.unlink()
    with pytest.raises(DataError, match=r"IMG_DATA has no band B05; it holds B01, B02, B03"):
        _open(product)
    tile = _file(product, "MTD_TL.xml")
    text = tile.read_text()
    for old, new, message in (
        ("EPSG:32632", "EPSG:0", "says HORIZONTAL_CS_CODE 'EPSG:0', which is no CRS"),
        ('Size resolution="10"', 'Size resolution="5"', "has no Size of resolution 10"),
        ("SENSING_TIME", "TIME", "has no SENSING_TIME"),
    ):
        tile.write_text(text.replace(old, new))
        with pytest.raises(DataError, match=f"MTD_TL.xml {message}"):
            _open(product, "B02")
    tile.unlink()
    with pytest.raises(DataError, match=r"has no MTD_TL\.xml"):
        _open(product, "B02")
    shutil.rmtree(product / "GRANULE")
    with pytest.raises(DataError, match="GRANULE holds no granule"):
        _open(product)


def test_miniatures_are_whole_and_the_same(made: Path, tmp_path: Path) -> None:
    again = make(tmp_path / "again", size=SIZE, dates=[DAY])
    for name in (f"export/S2_HARMONIZED_{DAY:%Y%m%d}.tif", "cover.tif"):
        with rasterio.open(made / name) as one, rasterio.open(again / name) as other:
            np.testing.assert_array_equal(one.read(), other.read())
    with pytest.raises(DataError, match="size is 100 pixels of 10 m, allowed: multiples of 6"):
        make(tmp_path / "odd", size=100)
    assert not (tmp_path / "odd").exists()


def test_a_real_product_without_pixels(real_data: Path) -> None:
    with pytest.raises(DataError, match=r"T32TNM_20170226T102021_B02\.jp2 is empty \(0 bytes\)"):
        open_sentinel2(real_data / "sentinel2_safe")
