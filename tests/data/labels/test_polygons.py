from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from dlbench.data import IGNORE, DataError
from dlbench.data.grid import Grid
from dlbench.data.labels.polygons import Polygons, class_indices, read_features

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM = CRS.from_epsg(32633)
GRID = Grid(UTM, Affine(10, 0, 465_000, 0, -10, 5_080_000), 40, 50)


def _write(
    file: Path, shapes: list[shapely.Geometry], crs: str | None = "EPSG:32633", **fields: list
) -> Path:
    fields = fields or {"crop": ["a"] * len(shapes)}
    pyogrio.raw.write(
        file, shapely.to_wkb(np.array(shapes, object)),
        [np.array(values) for values in fields.values()], list(fields),
        crs=crs, geometry_type=shapes[0].geom_type,
    )  # fmt: skip
    return file


def _labels(file: Path, indices: list[int], outside: int = IGNORE) -> Polygons:
    return Polygons(read_features(file, {}), np.array(indices, np.uint8), outside)


def _centres(grid: Grid, crs: CRS) -> tuple[np.ndarray, np.ndarray]:
    row, column = np.mgrid[0 : grid.height, 0 : grid.width] + 0.5
    x, y = grid.transform @ (column.ravel(), row.ravel())
    x, y = transform(grid.crs, crs, x, y)[:2]
    return np.array(x), np.array(y)


def _truth(
    shapes: list[shapely.Geometry], indices: list[int], grid: Grid, crs: CRS, outside: int
) -> np.ndarray:
    """Each centre's smallest polygon, by point in polygon in the polygons' own CRS."""
    x, y = _centres(grid, crs)
    target = np.full(x.size, outside, np.uint8)
    for k in sorted(range(len(shapes)), key=lambda k: -shapes[k].area):
        target[shapely.contains_xy(shapes[k], x, y)] = indices[k]
    return target.reshape(grid.height, grid.width)


def _blobs(count: int, crs: CRS, seed: int) -> list[shapely.Geometry]:
    """Overlapping polygons with holes on and about `GRID`."""
    rng = np.random.default_rng(seed)
    west, south, east, north = rasterio.warp.transform_bounds(UTM, crs, *GRID.bounds)
    unit = (north - south) / 10
    shapes = []
    for _ in range(count):
        x, y = rng.uniform(west - unit, east + unit), rng.uniform(south - unit, north + unit)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = unit * rng.uniform(0.5, 4, 9)
        ring = np.column_stack([x + radii * np.cos(angles), y + radii * np.sin(angles)])
        hole = shapely.Point(x, y).buffer(unit * 0.3)
        shapes.append(shapely.make_valid(shapely.Polygon(ring)).difference(hole))
    return [s for s in shapes if s.geom_type == "Polygon"]


@pytest.mark.parametrize("name", ["fields.shp", "fields.gpkg", "fields.geojson"])
@pytest.mark.parametrize("code", [32633, 4326, 3035])
def test_pixels_have_the_smallest_polygon_of_their_centre(
    tmp_path: Path, name: str, code: int
) -> None:
    if name.endswith("geojson") and code != 4326:
        pytest.skip("GeoJSON is in degrees by its standard")
    crs = CRS.from_epsg(code)
    shapes = _blobs(30, crs, seed=code)
    indices = [k % 7 for k in range(len(shapes))]
    file = _write(tmp_path / name, shapes, f"EPSG:{code}")
    target = _labels(file, indices, outside=9).read(GRID)
    truth = _truth(shapes, indices, GRID, crs, outside=9)
    assert target.dtype == np.uint8
    assert len(np.unique(truth)) == 8
    # GeoJSON rounds to 1e-7 degrees, a centimetre, which may move a centre over an edge.
    assert (target != truth).sum() <= (1 if name.endswith("geojson") else 0)


def test_windows_are_parts_of_the_whole(tmp_path: Path) -> None:
    labels = _labels(_write(tmp_path / "f.gpkg", _blobs(20, UTM, 1)), list(range(20)))
    whole = labels.read(GRID)
    for row, column in ((0, 0), (13, 7), (30, 45)):
        part = labels.read(GRID.window(row, column, 15, 20))
        inside = whole[row : row + 15, column : column + 20]
        np.testing.assert_array_equal(part[: inside.shape[0], : inside.shape[1]], inside)


def test_a_long_edge_is_straight_in_its_own_crs(tmp_path: Path) -> None:
    # 400 km along a parallel at 60 north bend some 6 km away from the chord in UTM.
    shape = shapely.Polygon([(11, 55), (19, 55), (19, 60), (11, 60)])
    grid = Grid(UTM, Affine(1000, 0, 280_000, 0, -1000, 6_700_000), 80, 440)
    labels = _labels(_write(tmp_path / "f.gpkg", [shape], "EPSG:4326"), [0])
    truth = _truth([shape], [0], grid, CRS.from_epsg(4326), IGNORE)
    wrong = labels.read(grid) != truth
    assert (truth == 0).any() and (truth == IGNORE).any()
    assert wrong.sum() <= 8  # Of the 440 pixels along the edge.


def test_repairs_leave_areas_only(tmp_path: Path) -> None:
    # A bow tie with a spike: repaired, two triangles and a line, which must not burn pixels.
    west, _, _, north = GRID.bounds
    knot = np.array([(0, 0), (200, 200), (200, 0), (0, 200), (0, 0), (0, 390), (0, 0)])
    corner = np.array([west + 100.5, north - 395.5])
    shape = shapely.Polygon(knot + corner)
    assert not shape.is_valid
    target = _labels(_write(tmp_path / "f.gpkg", [shape]), [3]).read(GRID)
    x, y = _centres(GRID, UTM)
    triangles = [
        shapely.Polygon(np.array(t) + corner)
        for t in ([(0, 0), (100, 100), (0, 200)], [(200, 0), (100, 100), (200, 200)])
    ]
    truth = shapely.contains_xy(shapely.union_all(triangles), x, y).reshape(target.shape)
    np.testing.assert_array_equal(target == 3, truth)


def test_polygons_across_the_date_line(tmp_path: Path) -> None:
    crs = CRS.from_epsg(32760)
    grid = Grid(crs, Affine(1000, 0, 800_000, 0, -1000, 8_030_000), 40, 60)
    shapes = [shapely.box(179.9, -18.1, 180, -17.9), shapely.box(-180, -18.1, -179.8, -17.9)]
    labels = _labels(_write(tmp_path / "f.gpkg", shapes, "EPSG:4326"), [1, 2])
    truth = _truth(shapes, [1, 2], grid, CRS.from_epsg(4326), IGNORE)
    assert {1, 2} <= set(np.unique(truth))
    np.testing.assert_array_equal(labels.read(grid), truth)
    labels.require_overlap(grid, Path("image.tif"))


def test_threads_read_the_same(tmp_path: Path) -> None:
    shapes = _blobs(30, CRS.from_epsg(4326), 2)
    labels = _labels(_write(tmp_path / "f.gpkg", shapes, "EPSG:4326"), list(range(len(shapes))))
    windows = [GRID.window(r, c, 16, 16) for r in (0, 12, 24) for c in (0, 17, 34)]
    expected = [labels.read(w) for w in windows]
    wrong: list[int] = []

    def work() -> None:
        for n, window in enumerate(windows):
            if (labels.read(window) != expected[n]).any():
                wrong.append(n)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_only_what_lies_near_a_grid_is_read(tmp_path: Path) -> None:
    west, south, _, _ = GRID.bounds
    shapes = [shapely.box(west + d, south, west + d + 50, south + 50) for d in (0, 90_000)]
    file = _write(tmp_path / "f.gpkg", shapes, crop=["near", "far"])
    features = read_features(file, {"kind": ("CROP",)}, grid=GRID)
    assert list(features.fields["kind"]) == ["near"]
    assert features.extent == (west, south, west + 90_050, south + 50)


@pytest.mark.parametrize("part", [".shx", ".dbf", ".prj"])
def test_a_missing_part_of_a_shapefile_is_named(tmp_path: Path, part: str) -> None:
    file = _write(tmp_path / "fields.shp", _blobs(3, UTM, 0))
    file.with_suffix(part).unlink()
    with pytest.raises(DataError, match=rf"fields\.shp lacks \{part} \("):
        read_features(file, {})


def test_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.gpkg does not exist"):
        read_features(tmp_path / "absent.gpkg", {})
    (tmp_path / "text.gpkg").write_text("no geopackage")
    with pytest.raises(DataError, match=r"text\.gpkg is no readable vector file"):
        read_features(tmp_path / "text.gpkg", {})
    with pytest.warns(UserWarning, match="crs"):
        bare = _write(tmp_path / "bare.gpkg", _blobs(3, UTM, 0), crs=None)
    with pytest.raises(DataError, match=r"bare\.gpkg has no CRS; assign it"):
        read_features(bare, {})
    shapes = _blobs(40, UTM, 0)
    for name in ("cut.shp", "cut.dbf", "cut.geojson"):
        file = tmp_path / name.replace("dbf", "shp")
        _write(file, shapes, "EPSG:4326" if name.endswith("geojson") else "EPSG:32633")
        cut = tmp_path / name
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
        with pytest.raises(DataError, match=rf"{name}.*fetch it again"):
            read_features(file, {})


def test_fields_and_layers(tmp_path: Path) -> None:
    shapes = _blobs(3, UTM, 0)
    file = _write(tmp_path / "f.gpkg", shapes, crop=["a"] * len(shapes), year=[1] * len(shapes))
    with pytest.raises(DataError, match=r"has no field kind or Kind_1; it has crop, year"):
        read_features(file, {"kind": ("kind", "Kind_1")})
    with pytest.raises(DataError, match=r"has the layers f: there is no layer 'g'"):
        read_features(file, {}, layer="g")
    pyogrio.raw.write(
        file, shapely.to_wkb(np.array(shapes, object)), [], [], layer="second",
        crs="EPSG:32633", geometry_type="Polygon", append=False,
    )  # fmt: skip
    with pytest.raises(DataError, match=r"has the layers f, second: a layer must be named"):
        read_features(file, {})


def test_unknown_attributes_are_named() -> None:
    known = {"wheat": 0, "maize": 1}
    values = ["wheat", None, "maize", float("nan")]
    assert list(class_indices(values, known, Path("f"), "crop")) == [0, IGNORE, 1, IGNORE]
    with pytest.raises(DataError, match=r"f\.shp holds in crop the unknown 'rye'; known: 'maize'"):
        class_indices(["wheat", "rye"], known, Path("f.shp"), "crop")


def test_labels_beside_the_image(tmp_path: Path) -> None:
    west, south, east, north = GRID.bounds
    far = shapely.box(west + 9000, south, east + 9000, north)
    # Its bounding box covers the image, itself it passes by.
    bent = shapely.Polygon(
        [(west - 50, south - 50), (east + 50, south - 50), (east + 50, south - 40),
         (west - 40, south - 40), (west - 40, north + 50), (west - 50, north + 50)]
    )  # fmt: skip
    for name, shape in (("far.gpkg", far), ("bent.gpkg", bent)):
        labels = _labels(_write(tmp_path / name, [shape]), [0])
        assert (labels.read(GRID) == IGNORE).all()
        with pytest.raises(DataError, match=rf"no polygon of .*{name} lies on image.tif: .*465000"):
            labels.require_overlap(GRID, Path("image.tif"))
    points = _write(tmp_path / "points.gpkg", [shapely.Point(west, south)])
    with pytest.raises(DataError, match="holds no polygons"):
        _labels(points, [0])


def test_real_crop_polygons(real_data: Path) -> None:
    file = real_data / "crops" / "lem_brazil" / "LEM_dataset.shp"
    features = read_features(file, {"crop": ("Jan_2020",)})
    assert len(features.geometries) == 1854
    crops = sorted(set(features.fields["crop"]))
    indices = class_indices(features.fields["crop"], {c: i for i, c in enumerate(crops)}, file, "")
    labels = Polygons(features, indices)
    grid = Grid(CRS.from_epsg(32723), Affine(10, 0, 389_000, 0, -10, 8_660_000), 300, 300)
    labels.require_overlap(grid, Path("image.tif"))
    tree = shapely.STRtree(shapely.make_valid(features.geometries))
    x, y = _centres(grid, features.crs)
    point, polygon = tree.query(shapely.points(x, y), predicate="within")
    once = np.isin(point, np.flatnonzero(np.bincount(point, minlength=x.size) == 1))
    truth = np.full(x.size, IGNORE, np.uint8)
    truth[point[once]] = indices[polygon[once]]
    several = np.bincount(point, minlength=x.size) > 1
    agree = (labels.read(grid).ravel() == truth)[~several].mean()
    assert (truth != IGNORE).mean() > 0.1
    assert agree > 0.9999


def test_real_land_use_polygons_give_its_raster(real_data: Path) -> None:
    folder = real_data / "sentinel2_slovenia"
    features = read_features(folder / "LULC.gpkg", {"class": ("LULC_ID",)})
    labels = Polygons(features, features.fields["class"].astype(np.uint8), outside=0)
    with rasterio.open(folder / "LULC.tif") as file:
        grid = Grid(UTM, file.transform, file.height, file.width)
        raster = file.read(1)
    agreement = (labels.read(grid) == raster).mean()
    print(f"agreement {agreement:.4f}")
    assert agreement > 0.9
