"""The training step: its loss, its class weights, weight decay, and loss scaling over ranks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlbench import data, training
from dlbench.config import ClassWeights, ConfigError
from dlbench.data import IGNORE
from dlbench.distributed import SingleProcess
from dlbench.layers import MonteCarloDropout
from dlbench.training import (
    Trainer,
    class_weights,
    count_valid,
    median_frequency_weights,
    summed_cross_entropy,
)

Jobs = Callable[[int], dict[str, Any]]


@pytest.fixture(autouse=True)
def float32() -> None:
    keras.config.set_dtype_policy("float32")


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
    found = summed_cross_entropy(logits, tf.constant(target), tf.constant(weights, tf.float32))
    assert found.dtype == tf.float32
    assert float(found) == pytest.approx(total, rel=1e-5)
    assert float(count_valid(tf.constant(target))) == pixels


def test_void_pixels_have_neither_loss_nor_gradient() -> None:
    logits = tf.Variable(np.random.default_rng(0).normal(size=(1, 2, 2, 3)).astype(np.float32))
    target = tf.constant([[[0, IGNORE], [IGNORE, 2]]], tf.uint8)
    with tf.GradientTape() as tape:
        loss = summed_cross_entropy(logits, target, tf.ones(3))
    gradient = tape.gradient(loss, logits).numpy()
    assert not gradient[0, [0, 1], [1, 0]].any()
    assert gradient[0, [0, 1], [0, 1]].all()
    nothing = tf.fill((1, 2, 2), tf.constant(IGNORE, tf.uint8))
    assert float(summed_cross_entropy(logits, nothing, tf.ones(3))) == 0
    assert float(count_valid(nothing)) == 0


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


def small_network() -> keras.Model:
    from dlbench import models

    keras.utils.set_random_seed(0)
    return models.build("segnet_basic", (None, None, 3), 3, width=0.05)


def one_step(decay: float, scaled: bool = False) -> list[np.ndarray]:
    """The change of each trainable variable in one step of SGD with learning rate 1."""
    network = small_network()
    trainer = Trainer(network, SingleProcess(), np.ones(3), weight_decay=decay)
    optimizer = keras.optimizers.SGD(1.0)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(network.trainable_variables)
    trainer.compile(optimizer=optimizer, jit_compile=False)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (2, 32, 32, 3), np.uint8)
    target = generator.integers(0, 3, (2, 32, 32), np.uint8)
    before = [v.numpy() for v in network.trainable_variables]
    batch = tf.data.Dataset.from_tensors((image, target))
    trainer.fit(batch, shuffle=False, verbose=0)
    return [v.numpy() - b for v, b in zip(network.trainable_variables, before, strict=True)]


@pytest.mark.parametrize("scaled", [False, True])
def test_weight_decay_reaches_kernels_alone(scaled: bool) -> None:
    variables = small_network().trainable_variables
    plain, decayed = one_step(0.0), one_step(0.25, scaled)
    kernels = 0
    for variable, without, with_decay in zip(variables, plain, decayed, strict=True):
        kernel = variable.path.endswith("kernel")
        kernels += kernel
        expected = without - 0.25 * variable.numpy() * kernel
        np.testing.assert_allclose(
            with_decay, expected, rtol=1e-3, atol=1e-5, err_msg=variable.path
        )
    assert kernels == 9


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_an_inf_on_one_rank_makes_all_skip_the_step(jobs: Jobs, ranks: int) -> None:
    """Steps 0 and 3 are sound; in 1 the last rank's gradients have an inf, in 2 its image."""
    found = [rank["loss_scaling"] for rank in jobs(ranks)["ranks"]]
    assert len(found) == ranks
    for rank in found:
        steps = rank["steps"]
        assert [step["iterations"] for step in steps] == [1, 1, 1, 2]
        first = steps[0]["scale"]
        assert [step["scale"] / first for step in steps] == [1, 0.5, 0.25, 0.25]
        start, *weights = [rank["weights_before"], *(step["weights"] for step in steps)]
        assert start != weights[0] == weights[1] == weights[2] != weights[3]
        assert rank["finite"]
        assert rank["steps"] == found[0]["steps"], "ranks differ"
        assert rank["weights"] == found[0]["weights"]


def test_each_rank_draws_dropout_masks_of_its_own() -> None:
    def mask(rank: int) -> np.ndarray:
        keras.utils.set_random_seed(0)
        layer = MonteCarloDropout(0.5)
        network = keras.Sequential([keras.Input((64,)), layer])
        training.draw_own_dropout(network, rank)
        return np.asarray(network(np.ones((1, 64), np.float32), training=True))

    np.testing.assert_array_equal(mask(0), mask(0))
    assert (mask(0) != mask(1)).mean() > 0.2
