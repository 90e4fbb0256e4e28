"""The Cropland Data Layer and the Annual Crop Inventory: tables, files and miniatures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from dlbench.data.dataset import IGNORE, DataError
from dlbench.data.grid import Grid
from dlbench.data.labels import aafc, cdl
from dlbench.data.labels.coded_raster import CodedRaster
from dlbench.data.miniatures import aafc as aafc_miniature
from dlbench.data.miniatures import cdl as cdl_miniature

GRID = Grid(CRS.from_epsg(32615), Affine(10, 0, 500_000, 0, -10, 4_600_000), 240, 300)


def test_codes_by_year() -> None:
    codes = {y: set(cdl.CDL.legend(years=[y]).index_of_code) for y in (2006, 2007, 2008)}
    assert {63, 83, 88} <= codes[2006] and not {111, 195} & codes[2006]
    assert {63, 111} <= codes[2007]
    assert {111, 141, 195} <= codes[2008] and not {63, 64, 65, 82, 88} & codes[2008]
    assert all({1, 24, 61, 92, 204, 254} <= held for held in codes.values())
    legend = cdl.CDL.legend()
    assert len({c.name for c in legend.classes}) == len(legend.classes) == 130
    assert legend.index_of_code[65] == legend.index_of_code[131]
    assert len(aafc.ACI.legend().classes) == 74


def test_files_are_found_by_year(tmp_path: Path) -> None:
    for name in (
        "2024_30m_cdls.tif", "2024_10m_cdls/2024_10m_cdls.tif", "2024_10m_cdls/2024_10m_cdls.tfw",
        "CDL_2024_19153.tif", "2023_30m_cdls.TIF", "2023_30m_cdls.tif.ovr", "notes.txt",
        "aci_2019_sk.tif", "aci_2019_sk_v2.tif", "aci_2019_mb_v1.tif",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    found = cdl.CDL.find(tmp_path)
    assert {year: [p.name for p in files] for year, files in found.items()} == {
        2023: ["2023_30m_cdls.TIF"],
        2024: ["2024_10m_cdls.tif", "2024_30m_cdls.tif", "CDL_2024_19153.tif"],
    }
    assert list(cdl.CDL.find(tmp_path, 2023)) == [2023]
    names = [p.name for p in aafc.ACI.find(tmp_path, 2019)[2019]]
    assert names == ["aci_2019_sk_v2.tif", "aci_2019_mb_v1.tif", "aci_2019_sk.tif"]
    with pytest.raises(DataError, match=r"holds no CDL of 2022; it holds 2023, 2024"):
        cdl.CDL.find(tmp_path, 2022)
    with pytest.raises(DataError, match=r"holds no file of CDL; its files are called 2023_30m"):
        cdl.CDL.find(tmp_path / "empty")
    with pytest.raises(DataError, match="does not exist"):
        aafc.ACI.find(tmp_path / "absent")


def _parcels() -> np.ndarray:
    codes = np.full((240, 300), 1, np.uint8)
    codes[:120, 150:], codes[120:, :150], codes[120:, 150:] = 5, 24, 36
    return codes


@pytest.mark.parametrize(("year", "pixel"), [(2018, 30), (2024, 10)])
def test_a_miniature_layer_reads_back(tmp_path: Path, year: int, pixel: int) -> None:
    file = cdl_miniature.write_labels(tmp_path, _parcels(), GRID, year)
    assert file.name == f"{year}_{pixel}m_cdls.tif"
    assert cdl.CDL.find(tmp_path) == {year: (file,)}
    assert {p.suffix for p in tmp_path.iterdir()} == {".tif", ".tfw", ".ovr"}
    with rasterio.open(file) as raster:
        assert raster.crs.to_epsg() == 5070 and raster.dtypes == ("uint8",)
        assert raster.colormap(1)[24] == (168, 112, 0, 255)
        place = raster.transform
        assert (place.a, place.e) == (pixel, -pixel)
        assert (place.c + 2_356_095) % pixel == 0 and (3_172_605 - place.f) % pixel == 0
        assert raster.read(1)[0, 0] == 0
    legend = cdl.CDL.legend({"corn": [1], "soy": [5], "wheat": [24], "alfalfa": [36]}, years=[year])
    read = CodedRaster(file, legend).read(GRID)
    truth = np.searchsorted([1, 5, 24, 36], _parcels())
    inner = np.ones(truth.shape, bool)
    inner[115:125], inner[:, 145:155] = False, False
    inner[:5], inner[-5:], inner[:, :5], inner[:, -5:] = False, False, False, False
    np.testing.assert_array_equal(read[inner], truth[inner])
    assert (read != truth).mean() < 0.03
    assert (CodedRaster(file, legend).read(GRID.window(0, -400, 240, 300)) == IGNORE).all()


def test_a_miniature_inventory_reads_back(tmp_path: Path) -> None:
    codes = np.where(_parcels() == 1, 153, 146).astype(np.uint8)
    file = aafc_miniature.write_labels(tmp_path, codes, GRID, 2010, "mb", 2)
    assert file.name == "aci_2010_mb_v2.tif"
    with rasterio.open(file) as raster:
        assert raster.transform.a == 56
    legend = aafc.ACI.legend({"canola": ["Canola and Rapeseed"], "wheat": ["Spring Wheat"]})
    read = CodedRaster(aafc.ACI.find(tmp_path, 2010)[2010], legend).read(GRID)
    assert (read == (codes == 146)).mean() > 0.95
    with pytest.raises(DataError, match="holds the code 153 at row"):
        CodedRaster(file, cdl.CDL.legend()).read(GRID)
