"""A prepared folder gives what the files give, to the bit, or says why it does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import mkstemp
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dlbench.data import (
    DATASETS,
    IGNORE,
    ClassInfo,
    DataError,
    DataSet,
    build,
    statistics,
)
from dlbench.data.__main__ import main
from dlbench.data.dataset import Sample
from dlbench.data.facts import facts
from dlbench.data.preparation import prepare
from dlbench.data.prepared import INDEX
from dlbench.data.windows import SPLITS, Part, Scene, WindowedDataSet, split_by_blocks


def _equal(one: DataSet, other: DataSet) -> None:
    """Every sample of every split, still and jittered twice."""
    assert one.splits == other.splits
    assert one.jitters == other.jitters
    for split in one.splits:
        assert one.count(split) == other.count(split)
        for index in range(one.count(split)):
            assert one.sample_name(split, index) == other.sample_name(split, index)
            for seed in (None, 0, 1):
                draws = [None if seed is None else np.random.default_rng(seed) for _ in range(2)]
                pairs = zip(
                    one.read(split, index, draws[0]),
                    other.read(split, index, draws[1]),
                    strict=True,
                )
                for part, prepared in pairs:
                    assert part.dtype == prepared.dtype
                    np.testing.assert_array_equal(part, prepared)


@pytest.fixture
def vaihingen(miniature: Path, tmp_path: Path) -> Path:
    """The miniature, prepared: a tile of 300 x 300 is a shard, so there are several."""
    data = build("vaihingen", miniature, (64, 64))
    return prepare(data, tmp_path / "prepared", shard_bytes=400_000)


@pytest.mark.parametrize(("size", "stride"), [((64, 64), None), ((128, 112), 50)])
def test_windows_are_those_of_the_files(
    miniature: Path, vaihingen: Path, size: tuple[int, int], stride: int | None
) -> None:
    files = build("vaihingen", miniature, size, stride=stride)
    prepared = build("vaihingen", vaihingen, size, stride=stride)
    _equal(files, prepared)
    assert facts(prepared) == facts(files)
    assert prepared.headline_leaves_out == files.headline_leaves_out == ("clutter",)
    assert len(list(vaihingen.glob("train-*.bin"))) == 2


def test_windows_in_evaluation_count_every_pixel_once(vaihingen: Path) -> None:
    data = build("vaihingen", vaihingen, (128, 112))
    counted = sum((data.read("val", i)[1] != IGNORE).sum() for i in range(data.count("val")))
    assert counted == 2 * 300 * 300
    for index in range(2):  # what is void in a window is not void in what is stored
        counted = (data.read("train", index)[1] != IGNORE).sum()
        assert counted == 128 * 112


def test_pictures_of_any_size(camvid_tree: Path, tmp_path: Path) -> None:
    from PIL import Image

    for folder in ("train", "trainannot"):
        path = camvid_tree / folder / "frame_0.png"
        Image.open(path).resize((20, 12), Image.Resampling.NEAREST).save(path)
    files = build("camvid", camvid_tree, (12, 16))
    _equal(files, build("camvid", prepare(files, tmp_path / "prepared"), (12, 16)))


@pytest.mark.parametrize("size", [None, (64, 64), (32, 48)])
def test_velocities(granulation_tree: Path, tmp_path: Path, size: tuple[int, int] | None) -> None:
    prepared = prepare(build("granulation", granulation_tree), tmp_path / "prepared")
    files = build("granulation", granulation_tree, size)
    _equal(files, build("granulation", prepared, size))
    assert facts(files) == facts(build("granulation", prepared, size))
    with pytest.raises(DataError, match="64 x 64 pixels; set it to no more"):
        build("granulation", prepared, (65, 64))


def test_statistics_are_equal(
    miniature: Path, vaihingen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = [
        statistics.of(build("vaihingen", r, (100, 100)), "val") for r in (miniature, vaihingen)
    ]
    assert found[0] == found[1]


class _Noise:
    """A scene of random numbers that says when it is read."""

    file = Path("noise.tif")
    height, width = 90, 130

    def __init__(self, name: str, told: Callable[[str], None]) -> None:
        self.name = name
        self._told = told
        rng = np.random.default_rng(len(name))
        self.image = rng.normal(size=(self.height, self.width, 2)).astype(np.float32)
        self.target = rng.integers(0, 2, (self.height, self.width), np.uint8)

    def read(self, row: int, column: int, height: int, width: int) -> Sample:
        self._told(self.name)
        window = np.s_[row : row + height, column : column + width]
        return self.image[window].copy(), self.target[window].copy()


class Scenes(WindowedDataSet):
    """Training scenes "a" and "bb"; with ``blocks`` one that is shared among the splits."""

    name = "scenes"
    bands = ("one", "two")
    classes = (ClassInfo("a", (0, 0, 0), 0), ClassInfo("b", (1, 1, 1), 1))
    dtype = np.dtype(np.float32)
    units = "none"
    ground_sampling_distance = None
    licence = source = "none"

    def __init__(
        self,
        root: Path,
        size: tuple[int, int] | None = None,
        stride: int | None = None,
        blocks: bool = False,
    ) -> None:
        super().__init__(root, size, stride)
        self.reads: list[str] = []
        self.broken = ""
        self.splits = SPLITS if blocks else ("train",)
        self._blocks = blocks

    def scenes(self, split: str) -> list[Scene]:
        if self._blocks:
            parts: list[Part] = split_by_blocks(_Noise("whole", self._told), self.window)[split]
            return list(parts)
        return [_Noise("a", self._told), _Noise("bb", self._told)]

    def _told(self, name: str) -> None:
        self.reads.append(name)
        if name == self.broken:
            raise DataError(f"{name} is damaged")


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``scenes(**options)``: the data set above, known to `build`."""
    monkeypatch.setitem(sys.modules, "scenes_of_a_test", SimpleNamespace(Scenes=Scenes))
    monkeypatch.setitem(DATASETS, "scenes", ("scenes_of_a_test", "Scenes"))
    root = tmp_path / "source"
    root.mkdir()
    return lambda size=(20, 20), **options: build("scenes", root, size, **options)


def test_floats_and_parts_of_scenes(scenes: Callable[..., Any], tmp_path: Path) -> None:
    data = scenes(blocks=True)
    out = prepare(data, tmp_path / "prepared")
    _equal(data, build("scenes", out, (20, 20), blocks=True))
    with pytest.raises(DataError, match=r"prepared for data\.size=\[20, 20\], by which the scenes"):
        build("scenes", out, (30, 30), blocks=True)


def test_what_was_written_is_not_read_again(scenes: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "prepared"
    data = scenes()
    data.broken = "bb"
    with pytest.raises(DataError, match="bb is damaged"):
        prepare(data, out, shard_bytes=1, workers=1)
    assert (out / "train-0000.bin").is_file()
    assert not (out / "train-0001.bin").exists()
    with pytest.raises(DataError, match="lacks prepared.json"):
        build("scenes", out, (20, 20))
    data = scenes()
    prepare(data, out, shard_bytes=1, workers=1)
    assert data.reads == ["bb"]
    assert sorted(p.name for p in out.iterdir()) == [INDEX, "train-0000.bin", "train-0001.bin"]
    _equal(data, build("scenes", out, (20, 20)))


def test_what_a_killed_process_was_writing_is_removed(
    scenes: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "prepared"
    out.mkdir()
    for name in ("train-0000.bin", "train-0000.json", INDEX):
        os.close(mkstemp(prefix=f".{name}.", dir=out)[0])  # as `write_atomically` does
    data = scenes()
    prepare(data, out, shard_bytes=1, workers=1)
    assert sorted(p.name for p in out.iterdir()) == [INDEX, "train-0000.bin", "train-0001.bin"]
    _equal(data, build("scenes", out, (20, 20)))


def test_what_has_changed_since_is_written_anew(scenes: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "prepared"
    data = scenes()
    data.broken = "bb"
    with pytest.raises(DataError, match="bb is damaged"):
        prepare(data, out, shard_bytes=1, workers=1)
    (data.root / "another.tif").touch()
    data = scenes()
    prepare(data, out, shard_bytes=1, workers=1)
    assert data.reads == ["a", "bb"]


def test_progress_adds_up(scenes: Callable[..., Any], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    prepare(scenes(), tmp_path / "prepared", progress=lambda *both: told.append(both))
    assert sum(done for done, _ in told) == 180
    assert {total for _, total in told} == {180}


def _first_pixel(image: bytes) -> bytes:
    return bytes([image[0] ^ 1]) + image[1:]


def _last_pixel(image: bytes) -> bytes:
    return image[:-1] + bytes([image[-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_first_pixel, "is damaged: rows 0 to 255 of area1 fail their checksum"),
        (_last_pixel, "is damaged: rows 256 to 299 of area1 fail their checksum"),
        (lambda image: image[:-100], r"has \d+ bytes, not \d+"),
        (None, "is missing"),
    ],
)
def test_a_damaged_shard_is_named(
    vaihingen: Path, damage: Callable[[bytes], bytes] | None, reason: str
) -> None:
    shard = vaihingen / "train-0000.bin"
    if damage is None:
        shard.unlink()
    else:
        shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(DataError, match=f"{re.escape(str(shard))} {reason}.*dlbench.data prepare"):
        data = build("vaihingen", vaihingen, (100, 100))
        for index in range(data.count("train")):
            data.read("train", index)


def test_only_damaged_rows_are_refused(vaihingen: Path) -> None:
    shard = vaihingen / "train-0000.bin"
    shard.write_bytes(_last_pixel(shard.read_bytes()))
    data = build("vaihingen", vaihingen, (100, 100))
    data.read("train", 0)
    for _ in range(2):
        with pytest.raises(DataError, match="checksum"):
            data.read("train", 8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[:100], "is damaged"),
        (lambda text: text.replace('"format": 3', '"format": 9'), "format 9, this version reads 3"),
        # Labels of LUCAS were of 2018, whatever the year of the image.
        (lambda text: text.replace('"format": 3', '"format": 2'), "other samples than its files g"),
        (lambda text: text.replace('"rows"', '"raws"'), "is damaged"),
        (lambda text: "[]", "is damaged"),
    ],
)
def test_a_damaged_index_is_named(
    vaihingen: Path, change: Callable[[str], str], reason: str
) -> None:
    index = vaihingen / INDEX
    index.write_text(change(index.read_text()))
    with pytest.raises(DataError, match=f"{re.escape(str(index))}.*{reason}"):
        build("vaihingen", vaihingen, (64, 64))


def test_options_must_be_those_prepared_with(miniature: Path, tmp_path: Path) -> None:
    out = prepare(build("vaihingen", miniature, (64, 64), labels="eroded"), tmp_path / "prepared")
    eroded = build("vaihingen", out, (64, 64), labels="eroded")
    _equal(build("vaihingen", miniature, (64, 64), labels="eroded"), eroded)
    with pytest.raises(
        DataError, match='prepared with labels="eroded", asked for is labels="full"'
    ):
        build("vaihingen", out, (64, 64))
    with pytest.raises(DataError, match=r"areas=null, asked for is areas=.*\[1\]"):
        build("vaihingen", out, (64, 64), labels="eroded", areas={"train": [1]})
    with pytest.raises(DataError, match="has no option wrong"):
        build("vaihingen", out, (64, 64), wrong=1)
    with pytest.raises(DataError, match=r"holds vaihingen, prepared, but data\.name is camvid"):
        build("camvid", out)


def test_some_of_the_splits(miniature: Path, tmp_path: Path) -> None:
    data = build("vaihingen", miniature, (64, 64))
    out = prepare(data, tmp_path / "prepared", ["val"])
    prepared = build("vaihingen", out, (64, 64))
    assert prepared.splits == ("val",)
    with pytest.raises(DataError, match="has no split 'train'; it holds: val"):
        prepared.count("train")
    with pytest.raises(DataError, match="has no split 'all'"):
        prepare(data, tmp_path / "other", ["all"])


def test_a_folder_in_the_way(miniature: Path, vaihingen: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(miniature, tmp_path / "tree"))
    data = build("vaihingen", root, (64, 64))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    for out, reason in (
        (root / "prepared", "lies in the data set's own folder"),
        (vaihingen, "holds a prepared data set"),
        (tmp_path / "full", "holds notes.txt and is in the way"),
        (tmp_path / "full/notes.txt", "is a file"),
    ):
        with pytest.raises(DataError, match=reason):
            prepare(data, out)
    with pytest.raises(DataError, match="is prepared already"):
        prepare(build("vaihingen", vaihingen, (64, 64)), tmp_path / "twice")


def test_the_command(miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["prepare", "vaihingen", str(miniature), str(out), "split=[train,val]"]) == 0
    assert f"data.root={out}" in capsys.readouterr().out
    assert main(["check", "vaihingen", str(out), "size=[100,100]"]) == 0
    assert "train    18 samples of (100, 100)" in capsys.readouterr().out
    index = json.loads((out / INDEX).read_text())
    assert index["source"] == str(miniature.resolve())
    assert main(["prepare", "vaihingen"]) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(miniature: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(DataError, match="cannot write to .*Permission denied"):
        prepare(build("vaihingen", miniature, (64, 64)), tmp_path / "locked/out")


def test_options_handed_on_to_the_class_below_must_agree_too(
    landscapes: Path, tmp_path: Path
) -> None:
    data = build("sentinel2_lucas", landscapes / "sentinel2_lucas", (24, 24), bands=["B04"])
    out = prepare(data, tmp_path / "prepared")
    with pytest.raises(DataError, match=r'prepared with bands=\["B04"\].* is bands=\["B08"\]'):
        build("sentinel2_lucas", out, (24, 24), bands=["B08"])
    # Windows without a label are no samples there, nor here.
    _equal(data, build("sentinel2_lucas", out, (24, 24), bands=["B04"]))


def test_windows_whose_labels_are_all_under_clouds_are_none_in_files_either(
    landscapes: Path, tmp_path: Path
) -> None:
    root = landscapes / "sentinel2_lucas"
    options: dict[str, Any] = {"geometry": "points", "dates": "all", "bands": ["B04"]}
    files = build("sentinel2_lucas", root, (6, 6), **options)
    clear = build("sentinel2_lucas", root, (6, 6), **options, mask_clouds=False)
    assert files.count("train") < clear.count("train"), "some are under clouds"
    _equal(
        files, build("sentinel2_lucas", prepare(files, tmp_path / "prepared"), (6, 6), **options)
    )
    for split in files.splits:
        for index in range(files.count(split)):
            assert split != "train" or (files.read(split, index)[1] != IGNORE).any()


def test_a_labelled_window_that_cannot_be_read_is_a_sample(
    landscapes: Path, tmp_path: Path
) -> None:
    """As in other data sets, where it is met as it is read: data.on_unreadable says what then."""
    root = Path(shutil.copytree(landscapes / "sentinel2_lucas", tmp_path / "damaged"))
    options: dict[str, Any] = {"bands": ["B04"], "mask_clouds": False}
    whole = build("sentinel2_lucas", root, (24, 24), **options)
    count = whole.count("train")
    names = [whole.sample_name("train", index) for index in range(count)]
    for archive in (root / "imagery").glob("*.zip"):
        shutil.unpack_archive(archive, root / "imagery")
        archive.unlink()
    image = next((root / "imagery").rglob("*20180610*_B04.jp2"))
    image.write_bytes(image.read_bytes()[:-300])
    damaged = build("sentinel2_lucas", root, (24, 24), **options)
    assert [damaged.sample_name("train", index) for index in range(count)] == names
    with pytest.raises(DataError, match=r"cannot read .*_B04\.jp2"):
        [damaged.read("train", index) for index in range(count)]
