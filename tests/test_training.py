"""The training step: its loss, its class weights, weight decay, and loss scaling over ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlbench import training
from dlbench.distributed import SingleProcess
from dlbench.layers import MonteCarloDropout
from dlbench.tasks.segmentation import CrossEntropy
from dlbench.training import Trainer

Jobs = Callable[[int], dict[str, Any]]


@pytest.fixture(autouse=True)
def float32() -> None:
    keras.config.set_dtype_policy("float32")


def small_network() -> keras.Model:
    from dlbench import models

    keras.utils.set_random_seed(0)
    return models.build("segnet_basic", (None, None, 3), 3, width=0.05)


def one_step(decay: float, scaled: bool = False) -> list[np.ndarray]:
    """The change of each trainable variable in one step of SGD with learning rate 1."""
    network = small_network()
    trainer = Trainer(network, SingleProcess(), CrossEntropy(np.ones(3)), weight_decay=decay)
    optimizer = keras.optimizers.SGD(1.0)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(network.trainable_variables)
    trainer.compile(optimizer=optimizer, jit_compile=False)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (2, 32, 32, 3), np.uint8)
    target = generator.integers(0, 3, (2, 32, 32), np.uint8)
    before = [v.numpy() for v in network.trainable_variables]
    trainer.step(iter([(image, target)]))
    return [v.numpy() - b for v, b in zip(network.trainable_variables, before, strict=True)]


class Watched(SingleProcess):
    """One rank that notes of each gradient it is given to sum after which ops, and from which."""

    def __init__(self, sums_overlap: bool) -> None:
        self.sums_overlap = sums_overlap
        self.after: list[set[str]] = []
        self.sources: set[str] = set()

    def sum_gradients(
        self, gradients: Sequence[Any], names: Sequence[str], scaled: bool = False
    ) -> list[Any]:
        for gradient in gradients:
            own = {tensor.op.name for tensor in gradient.op.inputs}
            self.after.append({op.name for op in gradient.op.control_inputs} | own)
            self.sources |= own
        return list(gradients)


@pytest.mark.parametrize("sums_overlap", [True, False])
def test_gradients_are_summed_beside_the_backward_pass_or_after_it(sums_overlap: bool) -> None:
    assert SingleProcess.sums_overlap
    network, ranks = small_network(), Watched(sums_overlap)
    trainer = Trainer(network, ranks, CrossEntropy(np.ones(3)))
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build(network.trainable_variables)
    trainer.compile(optimizer=optimizer, jit_compile=False)
    image, target = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 32, 32), np.uint8)
    trainer.step(iter([(image, target)]))
    assert len(ranks.sources) > 1
    assert len(ranks.after) == len(network.trainable_variables)
    assert all((after == ranks.sources) != sums_overlap for after in ranks.after)


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


@pytest.mark.parametrize("one_size", [True, False])
def test_ranks_divide_alike_whatever_size_they_see_first(one_size: bool) -> None:
    """Synchronised batch-norm adds up their gradients before what counts on all is known."""

    def divisor(side: int) -> float:
        trainer = Trainer(
            small_network(), SingleProcess(), CrossEntropy(np.ones(3)), one_size=one_size
        )
        batch = tf.zeros((1, side, side, 3)), tf.zeros((1, side, side), tf.uint8)
        image, target = trainer._kinds(batch)
        assert image.shape[3] == 3
        return trainer._nominal(target)

    assert (divisor(32) == divisor(128)) is not one_size


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
