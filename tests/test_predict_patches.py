"""A scene that came as Earth Engine's TFRecord patches: its map goes back as patches."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import rasterio

from dlbench import distributed, predict
from dlbench.data.imagery import tfrecord
from dlbench.data.imagery.earth_engine import read_mixer
from dlbench.data.miniatures.earth_engine import write_tfrecord_export


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "configure_devices", lambda threads: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """60 x 80 pixels of two bands, not known in one corner; the mixer's path."""
    values = np.random.default_rng(0).integers(0, 101, (2, 60, 80)).astype(np.float32)
    values[:, :7, :9] = np.nan
    with rasterio.open(
        "a.tif", "w", width=80, height=60, count=2, dtype="float32", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000),
    ) as file:  # fmt: skip
        file.write(values)
        file.descriptions = ["B4", "B8"]
    keras.utils.clear_session()
    image = keras.Input((None, None, 2))
    scores = keras.layers.Conv2D(2, 1)(keras.layers.Rescaling(1 / 50, -1.0)(image))
    keras.utils.set_random_seed(0)
    keras.Model(image, scores, name="segnet_basic").save("model.keras")
    return write_tfrecord_export(Path("a.tif"), patch=(20, 40))


def test_the_map_is_patches_in_the_same_order(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["tile=64", "overlap=8"]
    for out in ("map.tif", "new/map.tfrecord.gz", "new/plain.tfrecord"):
        assert predict.main(["model.keras", str(scene), out, *options]) == 0
    with rasterio.open("map.tif") as file:
        truth = file.read(1)
    assert (truth == 255).sum() == 63
    assert {0, 1, 255} == set(np.unique(truth))
    for name in ("map.tfrecord.gz", "plain.tfrecord"):
        found = list(tfrecord.read(tmp_path / "new" / name))
        assert [list(example) for example in found] == [["class"]] * 6
        rows = [
            np.stack([e["class"].reshape(20, 40) for e in found[i : i + 2]], 1) for i in (0, 2, 4)
        ]
        np.testing.assert_array_equal(np.concatenate(rows).reshape(60, 80), truth)
    new = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert new == ["map-mixer.json", "map.tfrecord.gz", "plain-mixer.json", "plain.tfrecord"]
    mixer = read_mixer(tmp_path / "new/map-mixer.json")
    assert (mixer.grid, mixer.patch) == (read_mixer(scene).grid, (20, 40))
    capsys.readouterr()
    for out, reason in (
        ("new/map.tfrecord.gz", "map.tfrecord.gz exists"),
        ("other.tfrecord.gz probabilities=p.tfrecord.gz", "p.tfrecord.gz does not end in .tif"),
    ):
        assert predict.main(["model.keras", str(scene), *out.split()]) == 2
        assert reason in capsys.readouterr().err
    assert predict.main(["model.keras", "a.tif", "b.tfrecord.gz"]) == 2
    assert "b.tfrecord.gz would be patches, but a.tif is no mixer file" in capsys.readouterr().err
