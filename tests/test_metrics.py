import json
import math

import numpy as np
import pytest

from dlbench.data.dataset import IGNORE
from dlbench.metrics import ConfusionMatrix, Moments


def golden() -> ConfusionMatrix:
    matrix = ConfusionMatrix(4)
    matrix.update([0, 0, 1, 1, 2, IGNORE], [0, 1, 1, 1, 0, 2])
    return matrix


def test_golden_of_the_segnet_script() -> None:
    summary = golden().summary(["a", "b", "c", "d"])
    assert summary["pixels"] == 5
    assert summary["global_accuracy"] == pytest.approx(0.6)
    assert summary["mean_class_accuracy_all_classes"] == pytest.approx(0.375)
    assert summary["mean_iou_all_classes"] == pytest.approx(0.25)
    # Class d is in neither side: a third of the sum over three classes instead of a quarter.
    assert summary["mean_class_accuracy_present_classes"] == pytest.approx(0.5)
    assert summary["mean_iou_present_classes"] == pytest.approx(1 / 3)
    assert summary["classes"]["d"] == {"pixels": 0, "class_accuracy": None, "iou": None, "f1": None}


def test_a_class_predicted_but_absent_from_the_truth() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update([0, 0, 1, 1], [0, 2, 1, 1])
    np.testing.assert_allclose(matrix.iou, [0.5, 1.0, 0.0])
    assert matrix.mean_over_all(matrix.iou) == pytest.approx(0.5)
    assert matrix.mean_over_present(matrix.iou) == pytest.approx(0.75)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
def test_equals_counting_by_hand(dtype: type) -> None:
    random = np.random.default_rng(3)
    classes, shape = 6, (5, 7, 11)
    truth = random.integers(0, classes, shape)
    truth[random.random(shape) < 0.2] = IGNORE
    truth[truth == 4] = 1  # an absent class
    prediction = random.integers(0, classes, shape)
    matrix = ConfusionMatrix(classes)
    for t, p in zip(truth.astype(dtype), prediction.astype(dtype), strict=True):
        matrix.update(t, p)

    valid = truth != IGNORE
    t, p = truth[valid], prediction[valid]
    n = t.size
    for i in range(classes):
        for j in range(classes):
            assert matrix.counts[i, j] == ((t == i) & (p == j)).sum()
        hit, union = ((t == i) & (p == i)).sum(), ((t == i) | (p == i)).sum()
        assert matrix.iou[i] == pytest.approx(hit / union)
        assert matrix.f1[i] == pytest.approx(2 * hit / ((t == i).sum() + (p == i).sum()))
    assert matrix.global_accuracy == pytest.approx((t == p).mean())
    assert math.isnan(matrix.class_accuracy[4])
    chance = sum((t == i).sum() * (p == i).sum() for i in range(classes)) / n**2
    assert matrix.kappa == pytest.approx(((t == p).mean() - chance) / (1 - chance))


def test_shards_summed_as_ranks_do_equal_one_evaluation() -> None:
    random = np.random.default_rng(0)
    truth, prediction = random.integers(0, 5, (2, 13, 40)).astype(np.uint8)
    whole = ConfusionMatrix(5)
    whole.update(truth, prediction)
    shards = [ConfusionMatrix(5) for _ in range(4)]
    for rank, shard in enumerate(shards):
        for image in range(rank, len(truth), 4):  # 13 is prime: shards of unequal length
            shard.update(truth[image], prediction[image])
    reduced = ConfusionMatrix(5)
    reduced.counts = np.sum([shard.counts for shard in shards], axis=0)
    names = list("abcde")
    assert reduced.summary(names) == whole.summary(names)
    added = shards[0] + shards[1] + shards[2]
    before = added.counts.copy()
    np.testing.assert_array_equal((added + shards[3]).counts, whole.counts)
    np.testing.assert_array_equal(added.counts, before)


def test_bad_labels_are_refused_and_leave_the_counts_alone() -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=r"truth holds the values \[3, 7\].*0 to 2.*255"):
        matrix.update([0, 7, 3], [0, 0, 0])
    with pytest.raises(ValueError, match=r"prediction holds the values \[3, 255\]"):
        matrix.update([0, 1, 1], [0, 3, 255])
    with pytest.raises(ValueError, match="prediction holds values from -1"):
        matrix.update([0, 1], [0, -1])
    with pytest.raises(ValueError, match="truth is float"):
        matrix.update([0.0], [0])
    with pytest.raises(ValueError, match="they must agree"):
        matrix.update([0, 1], [[0, 1]])
    assert matrix.pixels == 0
    with pytest.raises(ValueError, match="integers of shape"):
        matrix.counts = np.zeros((3, 3))
    with pytest.raises(ValueError, match="overflowed"):
        matrix.counts = np.full((3, 3), -1)
    with pytest.raises(ValueError, match="do not add"):
        matrix += ConfusionMatrix(2)
    with pytest.raises(ValueError, match="1 to 255"):
        ConfusionMatrix(256)


def test_summary_is_json_and_undefined_is_null() -> None:
    names = ["a", "b"]
    empty = json.loads(json.dumps(ConfusionMatrix(2).summary(names), allow_nan=False))
    assert empty["pixels"] == 0
    assert empty["global_accuracy"] is None
    assert empty["mean_iou_all_classes"] is None
    alone = ConfusionMatrix(2)
    alone.update([0, 0], [0, 0])  # chance agrees on every pixel
    assert alone.summary(names)["kappa"] is None


def test_the_headline_leaves_classes_out() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update([0, 0, 1, 1, 2, 2], [0, 0, 1, 0, 0, 0])
    summary = matrix.summary(["road", "car", "clutter"], leave_out=["clutter"])
    road, car = 4 / 7, 2 / 3
    assert summary["headline_mean_f1"] == pytest.approx((road + car) / 2)
    assert summary["mean_f1_present_classes"] == pytest.approx((road + car) / 3)
    assert summary["headline_leaves_out"] == ["clutter"]
    assert not [key for key in matrix.summary(["road", "car", "clutter"]) if "headline" in key]
    with pytest.raises(ValueError, match=r"leave_out names \['cluter'\]"):
        matrix.summary(["road", "car", "clutter"], leave_out=["cluter"])


def test_large_counts_do_not_overflow() -> None:
    matrix = ConfusionMatrix(2)
    matrix.counts = np.array([[3, 1], [1, 3]]) * 10**15
    assert matrix.global_accuracy == pytest.approx(0.75)
    assert matrix.kappa == pytest.approx(0.5)


def test_table_is_aligned_and_names_both_means() -> None:
    lines = golden().table(["road", "tree", "car", "pedestrian"]).splitlines()
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[1].split() == ["road", "0.400", "0.500", "0.333", "0.500"]
    assert lines[4].split() == ["pedestrian", "0.000", "-", "-", "-"]
    assert lines[5].split()[-3:] == ["0.375", "0.250", "0.325"]
    with pytest.raises(ValueError, match="2 class names for 4 classes"):
        golden().table(["a", "b"])


def test_moments_equal_numpy() -> None:
    random = np.random.default_rng(1)
    x = random.normal(2.0, 3.0, (4, 9, 9, 2)).astype(np.float32)
    y = (0.5 * x + random.normal(0.0, 1.0, x.shape)).astype(np.float32)
    valid = random.random(x.shape[:-1]) < 0.7
    x[~valid] = np.nan  # must not leak through the mask
    total = Moments(outputs=2)
    for image in range(0, 4, 2):
        part = Moments(outputs=2)
        part.update(x[image : image + 2], y[image : image + 2], valid[image : image + 2])
        total += part
    for k in range(2):
        a, b = x[valid][:, k].astype(np.float64), y[valid][:, k].astype(np.float64)
        assert total.rmse[k] == pytest.approx(np.sqrt(np.mean((a - b) ** 2)), rel=1e-12)
        assert total.spread[k] == pytest.approx(np.std(a), rel=1e-12)
        assert total.correlation[k] == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-10)
    assert total.summary(["vx", "vy"])["vx"]["n"] == valid.sum()

    reduced = Moments(outputs=2)
    reduced.sums = total.sums
    np.testing.assert_array_equal(reduced.rmse, total.rmse)


def test_moments_undefined_and_perfect() -> None:
    assert Moments().summary(["v"]) == {"v": {"n": 0, "rmse": None, "spread": None, "r": None}}
    constant = Moments()
    constant.update(np.full((7, 1), 0.1), np.linspace(0, 1, 7)[:, None])
    assert constant.summary(["v"])["v"]["r"] is None
    perfect = Moments()
    perfect.update([[1.0], [2.0], [4.0]], [[1.0], [2.0], [4.0]])
    expected = {"n": 3, "rmse": 0.0, "spread": pytest.approx(np.std([1, 2, 4])), "r": 1.0}
    assert perfect.summary(["v"]) == {"v": pytest.approx(expected)}
    with pytest.raises(ValueError, match="end in 1 outputs"):
        perfect.update([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="needed is bool"):
        perfect.update([[1.0]], [[1.0]], [1])
