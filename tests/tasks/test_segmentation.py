"""Segmentation: its loss, its class weights, and both over ranks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from dlbench import data
from dlbench.config import ClassWeights, ConfigError
from dlbench.data import IGNORE
from dlbench.distributed import SingleProcess
from dlbench.tasks.segmentation import (
    CrossEntropy,
    SegmentationEvaluation,
    SegmentationScorer,
    class_weights,
    median_frequency_weights,
)

Jobs = Callable[[int], dict[str, Any]]
EQUAL = CrossEntropy(np.ones(3))


def formula(logits: np.ndarray, target: np.ndarray, weights: np.ndarray) -> tuple[float, int]:
    """Weighted negative log-likelihood summed over valid pixels in float64, and their number."""
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    log_probability = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total, pixels = 0.0, 0
    for place in np.argwhere(target != IGNORE):
        truth = target[tuple(place)]
        total -= weights[truth] * log_probability[(*place, truth)]
        pixels += 1
    return total, pixels


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_loss_equals_the_formula(dtype: str) -> None:
    generator = np.random.default_rng(0)
    logits = tf.cast(generator.normal(0, 30, (2, 5, 7, 4)).astype(np.float32), dtype)
    target = generator.integers(0, 4, (2, 5, 7), np.uint8)
    target[generator.random(target.shape) < 0.3] = IGNORE
    weights = np.array([0.0, 0.5, 1.0, 8.0])
    total, pixels = formula(tf.cast(logits, tf.float32).numpy(), target, weights)
    found = CrossEntropy(weights).summed(logits, tf.constant(target))
    assert found.dtype == tf.float32
    assert float(found) == pytest.approx(total, rel=1e-5)
    assert float(EQUAL.count(tf.constant(target))) == pixels


def test_void_pixels_have_neither_loss_nor_gradient() -> None:
    logits = tf.Variable(np.random.default_rng(0).normal(size=(1, 2, 2, 3)).astype(np.float32))
    target = tf.constant([[[0, IGNORE], [IGNORE, 2]]], tf.uint8)
    with tf.GradientTape() as tape:
        loss = EQUAL.summed(logits, target)
    gradient = tape.gradient(loss, logits).numpy()
    assert not gradient[0, [0, 1], [1, 0]].any()
    assert gradient[0, [0, 1], [0, 1]].all()
    nothing = tf.fill((1, 2, 2), tf.constant(IGNORE, tf.uint8))
    assert float(EQUAL.summed(logits, nothing)) == 0
    assert float(EQUAL.count(nothing)) == 0


def test_an_epoch_counts_each_pixel_once(jobs: Jobs) -> None:
    """Seven samples in global batches of four: the last has three, on one, two or four ranks."""
    arrays = jobs(1)["arrays"]
    weights = np.array([0.5, 1.0, 3.0])
    total, pixels = formula(arrays["frozen/logits"], arrays["frozen/targets"], weights)
    assert len(arrays["frozen/targets"]) == 7
    for ranks in (1, 2, 4):
        for rank in jobs(ranks)["ranks"]:
            assert rank["frozen_loss"][0] == pytest.approx(total, rel=1e-5)
            assert rank["frozen_loss"][1] == pixels


def test_predictions_that_are_no_numbers_are_counted_and_leave_the_loss_unknown() -> None:
    """What is finite in another chunk does not hide them."""
    generator = np.random.default_rng(0)
    broken = generator.dirichlet(np.ones(3), (2, 4, 5)).astype(np.float32)
    broken[0, 1:3] = np.nan
    sound = np.nan_to_num(broken, nan=0.25)
    target = generator.integers(0, 3, (2, 4, 5), np.uint8)
    target[0, 1, :2] = IGNORE

    def scored(*chunks: np.ndarray) -> SegmentationEvaluation:
        scorer = SegmentationScorer("val", 4, len(chunks), ("road", "car", "tree"))
        for chunk, probability in enumerate(chunks):
            scorer.update(chunk, tf.constant(probability), target, target)
        return scorer.result(SingleProcess())

    found = scored(broken, sound)
    quality = found.quality()
    assert quality["loss"] is None
    assert quality["not_finite_pixels"] == 2 * 5 - 2
    json.dumps(quality, allow_nan=False)
    assert np.isnan(found.scores()["val_loss"])
    assert "8 of 76 pixels have probabilities that are no numbers" in found.table()
    right = scored(sound, sound)
    assert right.quality()["loss"] == right.loss
    assert "not_finite_pixels" not in right.quality()


def test_what_the_benchmark_leaves_out_changes_its_means_and_no_score_of_epochs() -> None:
    target = np.array([[[0, 0, 1, 1, 2]]], np.uint8)
    prediction = tf.one_hot([[[0, 0, 1, 0, 0]]], 3)

    def scored(*leave_out: str) -> SegmentationEvaluation:
        scorer = SegmentationScorer("val", 1, 1, ("road", "car", "clutter"), leave_out)
        scorer.update(0, prediction, target, target)
        return scorer.result(SingleProcess())

    headline = scored("clutter").quality()["training_size"]["headline_mean_f1"]
    assert headline == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert scored("clutter").scores() == scored().scores()


CAMVID_PIXELS = np.array(
    [
        10682767, 14750079, 623349, 20076880, 2845085, 6166762,
        743859, 714595, 3719877, 405385, 184967,
    ]
)  # fmt: skip
CAMVID_IMAGES = np.array([366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201])
CAMVID_WEIGHTS = np.array(
    [0.2793, 0.2017, 4.7865, 0.1490, 1.0, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587]
)


def test_median_frequency_weights_of_camvid() -> None:
    weights = median_frequency_weights(CAMVID_PIXELS, CAMVID_IMAGES * 360 * 480, None)
    np.testing.assert_allclose(weights, CAMVID_WEIGHTS, atol=6e-5)
    capped = median_frequency_weights(CAMVID_PIXELS, CAMVID_IMAGES * 360 * 480, 4.0)
    np.testing.assert_array_equal(capped, np.minimum(weights, 4.0))


def test_median_frequency_weights_of_an_unseen_class() -> None:
    weights = median_frequency_weights(np.array([40, 0, 10]), np.array([100, 0, 50]), None)
    np.testing.assert_allclose(weights, [0.75, 0.0, 1.5])


def test_class_weights_as_configured(street: Path) -> None:
    dataset = data.build("camvid", street)
    np.testing.assert_array_equal(class_weights(dataset, ClassWeights()), np.ones(11))
    values = list(np.linspace(0, 5, 11))
    given = ClassWeights(mode="given", values=values)
    np.testing.assert_array_equal(class_weights(dataset, given), values)
    capped = ClassWeights(mode="given", values=values, maximum=2.0)
    np.testing.assert_array_equal(class_weights(dataset, capped), np.minimum(values, 2.0))
    with pytest.raises(ConfigError, match="values has 2 weights, camvid has 11 classes"):
        class_weights(dataset, ClassWeights(mode="given", values=[1.0, 2.0]))


def test_class_weights_counted_from_labels(street: Path) -> None:
    dataset = data.build("camvid", street)
    pixels, images = np.zeros(11), np.zeros(11)
    for index in range(7):
        _, target = dataset.read("train", index)
        for c in range(11):
            pixels[c] += (target == c).sum()
            images[c] += (target == c).any()
    assert (pixels == 0).sum() < 11
    expected = median_frequency_weights(pixels, images * 32 * 32, None)
    found = class_weights(dataset, ClassWeights(mode="median_frequency"))
    np.testing.assert_allclose(found, expected)


@pytest.mark.slow
def test_class_weights_of_real_camvid() -> None:
    folder = os.environ.get("DLBENCH_DATA")
    if not folder:
        pytest.skip("DLBENCH_DATA is not set: it names the folder of real samples")
    dataset = data.build("camvid", Path(folder) / "camvid")
    if dataset.count("train") != 367:
        pytest.skip(f"{dataset.root} holds {dataset.count('train')} of the 367 training pictures")
    found = class_weights(dataset, ClassWeights(mode="median_frequency"))
    np.testing.assert_allclose(found, CAMVID_WEIGHTS, atol=6e-5)
