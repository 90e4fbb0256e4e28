from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlbench.data import IGNORE, DataError, build, miniatures
from dlbench.data.camvid import CLASSES
from dlbench.data.miniatures import camvid as streets

# Counted in the labels of the SegNet tutorial's CamVid; the last is void.
TRAIN_PIXELS = [
    10682767, 14750079, 623349, 20076880, 2845085, 6166762,
    743859, 714595, 3719877, 405385, 184967, 2503995,
]  # fmt: skip


def test_reads_what_the_files_hold(camvid_tree: Path) -> None:
    data = build("camvid", camvid_tree)
    assert data.splits == ("train", "val")
    assert (data.count("train"), data.count("val")) == (5, 2)
    assert data.sample_name("val", 1) == "val/frame_1"
    image, target = data.read("train", 3)
    label = np.array(Image.open(camvid_tree / "trainannot/frame_3.png"))
    np.testing.assert_array_equal(image, np.array(Image.open(camvid_tree / "train/frame_3.png")))
    np.testing.assert_array_equal(target[label < 11], label[label < 11])
    assert (target[label == 11] == IGNORE).all()
    assert (label == 11).any()
    assert image.dtype == target.dtype == np.uint8


def test_missing_folder_list_and_split(camvid_tree: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere, does not exist"):
        build("camvid", camvid_tree / "nowhere")
    with pytest.raises(DataError, match=r"list files \(train\.txt, val\.txt, test\.txt\)"):
        build("camvid", camvid_tree / "train")
    with pytest.raises(DataError, match=r"no split 'test'; it holds: train, val"):
        build("camvid", camvid_tree).count("test")


def _rgb(label: Path) -> None:
    Image.open(label).convert("RGB").save(label)


def _other_size(label: Path) -> None:
    Image.open(label).resize((8, 6)).save(label)


def _out_of_range(label: Path) -> None:
    Image.fromarray(np.full((12, 16), 40, np.uint8)).save(label)


def _truncate(label: Path) -> None:
    label.write_bytes(label.read_bytes()[:-60])


def _no_image(label: Path) -> None:
    label.write_text("not a picture")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_rgb, "is of mode RGB, expected L"),
        (_other_size, "is 6 x 8, but its picture .*train/frame_2.png is 12 x 16"),
        (_out_of_range, r"holds the values \[40\], allowed are 0-10 and 11"),
        (_truncate, "cannot decode"),
        (_no_image, "cannot decode"),
        (Path.unlink, r"does not exist \(1 of 10 files missing\)"),
    ],
)
def test_an_unusable_label_is_named(camvid_tree: Path, damage, reason: str) -> None:  # type: ignore[no-untyped-def]
    label = camvid_tree / "trainannot/frame_2.png"
    damage(label)
    data = build("camvid", camvid_tree)
    with pytest.raises(DataError, match=reason) as error:
        data.read("train", 2)
    assert str(label) in str(error.value)


def test_a_picture_that_is_not_rgb_is_named(camvid_tree: Path) -> None:
    picture = camvid_tree / "train/frame_0.png"
    Image.open(picture).convert("L").save(picture)
    with pytest.raises(DataError, match=r"train/frame_0\.png is of mode L, expected RGB"):
        build("camvid", camvid_tree).read("train", 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("one_path_only.png\n", "line 1: expected 'picture label'"), ("\n", "is empty")],
)
def test_a_bad_list_is_named(camvid_tree: Path, text: str, reason: str) -> None:
    (camvid_tree / "val.txt").write_text(text)
    with pytest.raises(DataError, match=reason) as error:
        build("camvid", camvid_tree).count("val")
    assert str(camvid_tree / "val.txt") in str(error.value)


def test_real_tree_has_the_published_counts(real_data: Path) -> None:
    data = build("camvid", real_data / "camvid")
    assert (data.count("train"), data.count("val")) == (367, 101)
    assert len(data.classes) == 11
    pixels = np.zeros(256, np.int64)
    for index in range(data.count("train")):
        image, target = data.read("train", index)
        assert image.shape == (360, 480, 3)
        pixels += np.bincount(target.ravel(), minlength=256)
    assert [*pixels[:11], pixels[IGNORE]] == TRAIN_PIXELS


def test_the_miniature_is_read_as_it_was_drawn(tmp_path: Path) -> None:
    made = miniatures.make("camvid", tmp_path / "camvid", 3, pictures={"train": 2, "val": 1})
    data = build("camvid", made)
    assert (data.splits, data.count("train"), data.count("val")) == (("train", "val"), 2, 1)
    assert data.missing() == [f"{made / 'test.txt'}: the split 'test'"]
    image, target = data.read("val", 0)
    picture, label = streets.street(np.random.default_rng([3, 1, 0]), streets.SIZE)
    np.testing.assert_array_equal(image, picture)
    np.testing.assert_array_equal(target, np.where(label == 11, IGNORE, label))
    assert image.shape == (360, 480, 3)


def test_streets_show_every_class_and_no_color_tells_it() -> None:
    drawn = [streets.street(np.random.default_rng(seed), (90, 120)) for seed in range(64)]
    images = np.stack([image for image, _ in drawn]).reshape(-1, 3)
    labels = np.stack([label for _, label in drawn]).ravel()
    shares = np.bincount(labels, minlength=12) / labels.size
    assert shares[[one.code for one in CLASSES]].min() > 0.004
    assert 0 < shares[11] < 0.02
    # The likeliest class of each colour, coarsely, does badly even on what it was counted on.
    bins = (images // 32).astype(int) @ [64, 8, 1]
    counts = np.zeros((512, 12), int)
    np.add.at(counts, (bins, labels), 1)
    guess = counts.argmax(axis=1)[bins]
    overlap = [
        np.sum((guess == code) & (labels == code)) / np.sum((guess == code) | (labels == code))
        for code in range(11)
    ]
    assert np.mean(overlap) < 0.4


def test_a_picture_too_small_for_a_street(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"size is \[20, 90\], allowed: at least 48 x 48"):
        streets.make(tmp_path / "camvid", size=(20, 90))
